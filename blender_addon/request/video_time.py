"""Which of the poses that were found in a video belong to which of the scene's frames."""

from __future__ import annotations

import bpy
import numpy as np

from ..buttons import FIND_POSES
from ..errors import ExportError
from ..sequencer import footage
from ..sequencer.footage import Clock
from . import kept_poses
from .kept_poses import KeptPoses

NO_POSES = "Find the poses in a video first, in the Video panel"


def poses_of(scene: bpy.types.Scene) -> KeptPoses:
    """Raises `ExportError` where there are none."""
    kept = kept_poses.read(scene.poseanything_video.poses)
    if kept is None:
        raise ExportError(f"{NO_POSES}.", *FIND_POSES)
    return kept


def shown_index(scene: bpy.types.Scene, kept: KeptPoses, frame: float) -> int | None:
    """Which of the found frames a scene frame shows; it may lie outside of them. None where the strip's speed
    was changed in a way that can't be followed. Where the strip is gone, the first is at the scene's
    start."""
    found = footage.find(scene.poseanything_video.strip)
    if found is None:
        return int(np.floor(frame - scene.frame_start + 1e-4))
    edit, strip = found
    return index_in(strip, kept, footage.edit_frame(scene, edit, frame))


def index_in(strip: bpy.types.Strip, kept: KeptPoses, frame: float) -> int | None:
    """As `shown_index`, at a frame of the strip's own scene."""
    position = Clock(kept.source.keys).position(strip, frame)
    return None if position is None else int(np.floor(position - kept.source.first + 1e-4))


def shown_span(scene: bpy.types.Scene) -> tuple[int, int] | None:
    """The first and the last scene frame at which the video's strip is shown; None without a video."""
    video = scene.poseanything_video
    found = footage.find(video.strip)
    if found is not None:
        return footage.shown_span(scene, *found)
    if video.poses is None:
        return None
    return scene.frame_start, scene.frame_start + poses_of(scene).found.pose.num_frames - 1
