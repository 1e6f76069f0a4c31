"""The export that every operator shares: first frame, clip, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import bpy
import numpy as np

from .. import session
from ..request.build import export_options
from ..request.export import ExportedClip, ExportOptions, ExportStep, export_clip
from ..request.finding import Finding
from ..request.first_frame import make_first_frame
from ..request.range import ClipRange, Shot
from ..request.review import review_keys
from ..request.subjects import find_subjects
from ..request.video import export_video, picture_mask, with_picture_mask
from ..shared.engines import EngineDescription
from ..steps import mapped
from ..texts import say
from ..view import SceneCamera, Viewport


def keep_path(scene: bpy.types.Scene, planned: ClipRange, path: np.ndarray | None) -> None:
    """Remember how the background of a range moves, for what is drawn over the view."""
    still = np.broadcast_to(np.eye(3, dtype=np.float32), (planned.num_frames, 3, 3))
    session.get().camera_paths = {(scene.name, planned): still if path is None else path}


def export_range(
    context,
    settings,
    planned: ClipRange,
    armatures: tuple[bpy.types.Object, ...],
    view: SceneCamera | Viewport,
    interactive: bool,
    engine: EngineDescription | None = None,
) -> Generator[ExportStep, None, tuple[ExportedClip, ExportOptions]]:
    """Step by step: the clip for an engine, and what was exported; the session's findings become those of
    this clip.

    interactive: whether the window's events are handled between two steps. Raises `ExportError`.
    """
    current = session.get()
    current.findings = ()
    with tempfile.TemporaryDirectory(prefix="poseanything-") as scratch:
        picture = yield from make_first_frame(context, settings, planned, view, Path(scratch), interactive)
        options = export_options(context, settings, planned, armatures, view, picture, engine)
        if settings.pose_source == "VIDEO":
            clip = yield from export_video(context, settings, planned, options)
        else:
            clip = yield from export_clip(context, options)
            mask = picture_mask(context.scene, settings, planned.width, planned.height)
            if mask is not None:
                clip = dataclasses.replace(clip, **with_picture_mask(clip, mask))
    current.keep_motions(clip.motions)
    keep_path(context.scene, planned, clip.camera_motion)
    current.findings = (*clip.findings, *review_keys(settings, planned, options.pose_frames))
    return clip, options


def export_shots(
    context,
    settings,
    shots: Sequence[Shot],
    view: SceneCamera | Viewport,
    interactive: bool,
    engine: EngineDescription | None = None,
) -> Iterator[tuple[Shot, Generator[ExportStep, None, tuple[ExportedClip, ExportOptions]]]]:
    """Each shot with its export, as `export_range` has it; one after the other is to be run. That there are
    several is told with the first one's findings, and in the end the session's are those of all."""
    told: list[Finding] = []
    if len(shots) > 1:
        where = ", ".join(f"{shot.span[0]} ({shot.camera.name})" for shot in shots[1:])
        sentence = say(
            "The camera cuts at frame {where}: each of {count} shots is a clip.",
            where=where,
            count=len(shots),
        )
        told.append(Finding(sentence))
    armatures = find_subjects(context, settings)
    for number, shot in enumerate(shots):
        seen = view if shot.camera is None else SceneCamera(shot.camera)
        work = export_range(context, settings, shot.planned, armatures, seen, interactive, engine)
        yield shot, _one_of(work, number, len(shots), told)
    session.get().findings = tuple(told)


def _one_of(work, number: int, count: int, told: list[Finding]):
    """One of several exports. The session's findings become those that were not told before."""
    result = yield from mapped(
        lambda step: dataclasses.replace(step, fraction=(number + step.fraction) / count), work
    )
    current = session.get()
    fresh = [finding for finding in current.findings if finding not in told]
    current.findings = tuple(fresh if number else told + fresh)
    told += fresh
    return result
