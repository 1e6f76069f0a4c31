"""Which scene frames are generated, how many, how large and how fast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import ExportError
from ..rig.animation import keyed_frames, movers
from ..rig.subjects import find_armatures
from ..shared.messages import MAX_CLIP_PIXELS, MAX_PIXELS, EngineDescription
from ..view import clip_size
from .subjects import find_subjects


@dataclass(frozen=True)
class ClipRange:
    """When and how large. Clip frame i is scene frame `frame_start` + i * `frame_step`; the clip is shown
    for `duration` scene frames, which may end before its last frame where the engine takes only certain
    lengths."""

    frame_start: int
    frame_step: int
    duration: int
    num_frames: int
    width: int
    height: int
    fps: float

    @property
    def asked(self) -> int:
        """How many frames the range has; engines may make more of them."""
        return num_frames(self.duration, self.frame_step, None)

    def part(self, first: int, last: int, engine: EngineDescription) -> ClipRange:
        """The scene frames `first` to `last` of it, as an engine can take them."""
        duration = last - first + 1
        frames = num_frames(duration, self.frame_step, engine)
        return replace(self, frame_start=first, duration=duration, num_frames=frames)


def num_frames(duration: int, step: int, engine: EngineDescription | None) -> int:
    """How many clip frames show `duration` scene frames, one for `step` of them: as many as an engine takes,
    which may be more; without an engine just as many as it takes."""
    frames = (duration - 1) // step + 1
    return frames + -(frames - 1) % engine.frame_step if engine is not None else frames


def frame_range(scene, settings) -> tuple[int, int]:
    """First and last scene frame. Raises `ExportError` when there is none between them."""
    if settings.use_custom_range:
        first, last = settings.frame_start, settings.frame_end
    elif scene.use_preview_range:
        first, last = scene.frame_preview_start, scene.frame_preview_end
    else:
        first, last = scene.frame_start, scene.frame_end
    if last < first:
        raise ExportError(
            f"The frame range is empty: its end ({last}) comes before its start ({first}); change one of "
            "them."
        )
    return first, last


def clip_range(context, settings, engine: EngineDescription | None) -> ClipRange:
    """What an engine can take of the range; without an engine, the range as it is. The clip has the scene's
    aspect, whatever it is seen through. Raises `ExportError`."""
    scene = context.scene
    first, last = frame_range(scene, settings)
    duration = last - first + 1
    frames = num_frames(duration, settings.frame_step, engine)
    multiple, most = 2, None
    if engine is not None:
        multiple, most = max(engine.size_multiple, 2), engine.max_frames
    if most is not None and frames > most:
        raise ExportError(
            f"The range has {frames} frames but {engine.label} makes at most {most}; shorten the range or "
            "raise the step."
        )
    width, height = clip_size(scene, settings.long_side, multiple)
    if width * height > MAX_PIXELS or frames * width * height > MAX_CLIP_PIXELS:
        raise ExportError(
            f"A clip of {frames} frames at {width} x {height} is too large; choose a smaller size or fewer "
            "frames."
        )
    fps = scene.render.fps / scene.render.fps_base / settings.frame_step
    return ClipRange(first, settings.frame_step, duration, frames, width, height, fps)


def pose_frames(context, settings, clip_range: ClipRange) -> tuple[int, ...] | None:
    """Indices of the clip frames that carry a pose, None for all; the first and the last always do."""
    if settings.pose_density == "ALL":
        return None
    last = clip_range.num_frames - 1
    if settings.pose_density == "NTH":
        chosen = range(0, last, settings.pose_interval)
    else:
        if settings.pose_density == "KEYS":
            frames = set(_keyed_frames(context, settings))
        elif settings.pose_density == "MARKERS":
            frames = {marker.frame for marker in context.scene.timeline_markers}
        else:
            frames = set(key_poses(settings))
        indices = (round((frame - clip_range.frame_start) / clip_range.frame_step) for frame in frames)
        chosen = (index for index in indices if 0 < index < last)
    return tuple(sorted({0, *chosen, last}))


def key_poses(settings) -> list[int]:
    """The scene frames that were chosen by hand, in order."""
    return sorted({int(word) for word in settings.key_poses.split() if word.lstrip("-").isdigit()})


def _keyed_frames(context, settings) -> Iterator[float]:
    """The scene frames at which the subjects are keyed, or what moves them is: controls, other armatures,
    instancers, what drivers read."""
    for armature, instancers in find_armatures(find_subjects(context, settings)):
        for block in movers([armature, *instancers]):
            yield from keyed_frames(block)
