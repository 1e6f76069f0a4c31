"""Which scene frames are generated, how many, how large and how fast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import ExportError
from ..rig.animation import keyed_frames, movers
from ..rig.subjects import find_armatures
from ..shared.messages import MAX_CLIP_PIXELS, MAX_PIXELS, EngineDescription
from ..texts import say
from ..times import ClipTimes, frame_rate, frames_in, to_scene, whole_if_close
from ..view import clip_size
from .subjects import find_subjects
from .video_time import shown_span


@dataclass(frozen=True)
class ClipRange:
    """When, how large in pixels, and how many frames a second."""

    times: ClipTimes
    width: int
    height: int
    fps: float

    @property
    def num_frames(self) -> int:
        return self.times.num_frames


def frame_range(scene, settings) -> tuple[int, int]:
    """First and last scene frame; of a video that poses come from, those at which it is shown. Raises
    `ExportError` when there is none between them."""
    filmed = shown_span(scene) if settings.pose_source == "VIDEO" else None
    if settings.use_custom_range:
        first, last = settings.frame_start, settings.frame_end
    elif filmed is not None:
        first, last = filmed
    elif scene.use_preview_range:
        first, last = scene.frame_preview_start, scene.frame_preview_end
    else:
        first, last = scene.frame_start, scene.frame_end
    if last < first:
        raise ExportError(
            say(
                "The frame range is empty: its end ({last}) comes before its start ({first}); change one of "
                "them.",
                last=last,
                first=first,
            )
        )
    return first, last


def clip_pace(scene, settings) -> float:
    """For how many scene frames each frame of a clip is shown."""
    if settings.pacing == "RATE":
        return whole_if_close(frame_rate(scene) / settings.clip_rate)
    return settings.frame_step


def clip_range(context, settings, engine: EngineDescription | None) -> ClipRange:
    """What an engine can take of the range; without an engine, the range as it is. The clip has the scene's
    aspect, whatever it is seen through. Raises `ExportError`."""
    scene = context.scene
    first, last = frame_range(scene, settings)
    duration, pace = last - first + 1, clip_pace(scene, settings)
    step = whole_if_close(pace * settings.speed)
    frames = frames_in(duration, step, engine.frame_step if engine is not None else 1)
    multiple, most = 2, None
    if engine is not None:
        multiple, most = max(engine.size_multiple, 2), engine.max_frames
    if most is not None and frames > most:
        raise ExportError(
            say(
                "The range has {frames} frames but {engine} makes at most {most}; shorten the range or "
                "raise the step.",
                frames=frames,
                engine=engine.label,
                most=most,
            )
        )
    width, height = clip_size(scene, settings.long_side, multiple)
    if width * height > MAX_PIXELS or frames * width * height > MAX_CLIP_PIXELS:
        raise ExportError(
            say(
                "A clip of {frames} frames at {width} x {height} is too large; choose a smaller size or "
                "fewer frames.",
                frames=frames,
                width=width,
                height=height,
            )
        )
    times = ClipTimes(first, step, frames, duration, step / pace)
    return ClipRange(times, width, height, frame_rate(scene) / times.pace)


def pose_frames(context, settings, clip_range: ClipRange) -> tuple[int, ...] | None:
    """Indices of the clip frames that carry a pose, None for all; the first and the last always do. A video
    has no keyframes: all its frames are."""
    if settings.pose_density == "ALL" or (settings.pose_density, settings.pose_source) == ("KEYS", "VIDEO"):
        return None
    last = clip_range.num_frames - 1
    if settings.pose_density == "NTH":
        chosen = range(0, last, settings.pose_interval)
    else:
        if settings.pose_density == "KEYS":
            frames = set(_keyed_frames(context, settings))
        elif settings.pose_density == "MARKERS":
            frames = {to_scene(context.scene, marker.frame) for marker in context.scene.timeline_markers}
        else:
            frames = set(key_poses(settings))
        indices = (round(clip_range.times.index_of(frame)) for frame in frames)
        chosen = (index for index in indices if 0 < index < last)
    return tuple(sorted({0, *chosen, last}))


def key_poses(settings) -> list[float]:
    """The scene frames that were chosen by hand, in order."""
    found = set()
    for word in settings.key_poses.split():
        try:
            found.add(whole_if_close(float(word)))
        except (ValueError, OverflowError):
            pass  # typed by hand
    return sorted(found)


def _keyed_frames(context, settings) -> Iterator[float]:
    """The scene frames at which the subjects are keyed, or what moves them is: controls, other armatures,
    instancers, what drivers read."""
    for armature, instancers in find_armatures(find_subjects(context, settings)):
        for block in movers([armature, *instancers]):
            yield from (to_scene(context.scene, frame) for frame in keyed_frames(block))
