"""Which scene frames are generated, how many, how large and how fast."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import itemgetter

import bpy

from ..buttons import USE_SCENE_RANGE
from ..errors import ExportError
from ..rig.animation import keyed_frames, movers
from ..rig.subjects import find_armatures
from ..shared.messages import MAX_CLIP_PIXELS, MAX_PIXELS, EngineDescription
from ..texts import say
from ..times import ClipTimes, frame_rate, frames_in, to_animation, to_scene, whole_if_close
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


@dataclass(frozen=True)
class Shot:
    """Scene frames `span`, both included, as one clip: `planned`. It is seen through `camera`, None for
    whatever the settings say."""

    span: tuple[int, int]
    planned: ClipRange
    camera: bpy.types.Object | None = None


def frame_range(scene, settings) -> tuple[int, int]:
    """First and last scene frame; of a video that poses come from, those at which it is shown. Raises
    `ExportError` when there is none between them."""
    if settings.use_custom_range:
        first, last = settings.frame_start, settings.frame_end
    elif settings.pose_source == "VIDEO" and (filmed := shown_span(scene)) is not None:
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
            ),
            *(USE_SCENE_RANGE if settings.use_custom_range else ()),
        )
    return first, last


def clip_pace(scene, settings) -> float:
    """For how many scene frames each frame of a clip is shown."""
    if settings.pacing == "RATE":
        return whole_if_close(frame_rate(scene) / settings.clip_rate)
    return settings.frame_step


def clip_range(
    context, settings, engine: EngineDescription | None, span: tuple[int, int] | None = None
) -> ClipRange:
    """What an engine can take of the range, or of the scene frames of a `span`; without an engine, these as
    they are. The clip has the scene's aspect, whatever it is seen through. Raises `ExportError`."""
    scene = context.scene
    first, last = span or frame_range(scene, settings)
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
                engine=engine.short_label,
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


def clip_shots(context, settings, engine: EngineDescription | None) -> list[Shot]:
    """The range, cut where markers change the camera, since no clip can follow a cut. A picture that the
    user chose is of one camera: then nothing is cut, and the user is told. Raises `ExportError`."""
    scene = context.scene
    first, last = frame_range(scene, settings)
    filmed = settings.view == "CAMERA" and settings.pose_source != "VIDEO"
    cuts = camera_cuts(scene, first, last) if filmed else {}
    if not cuts or settings.first_frame_source not in {"RENDER", "VIEWPORT"}:
        # An engine may take more frames than are asked for: they, too, are of this camera.
        one = filmed and not cuts and bool(_switches(scene))
        camera = camera_at(scene, first) if one else None
        return [Shot((first, last), clip_range(context, settings, engine), camera)]
    begins = [first, *cuts]
    shots = []
    for begin, end in zip(begins, [*(cut - 1 for cut in cuts), last], strict=True):
        planned = clip_range(context, settings, engine, (begin, end))
        place = whole_if_close(first + (begin - first) / settings.speed)
        times = replace(planned.times, place=None if place == begin else place)
        camera = cuts[begin] if begin in cuts else camera_at(scene, begin)
        shots.append(Shot((begin, end), replace(planned, times=times), camera))
    return shots


def camera_cuts(scene, first: int, last: int) -> dict[int, bpy.types.Object]:
    """The scene frames after `first` and up to `last` from which on markers show another camera, and that
    camera, in order."""
    switches, cuts = _switches(scene), {}
    before = _seen_at(switches, first)
    for frame in sorted({math.ceil(at) for at, _ in switches if first < math.ceil(at) <= last}):
        camera = _seen_at(switches, frame)
        if camera != before:
            cuts[frame] = before = camera
    return cuts


def camera_at(scene, frame: int) -> bpy.types.Object | None:
    """The camera that markers show at a scene frame: that of the last one so far, or else of the first."""
    switches = _switches(scene)
    return _seen_at(switches, frame) if switches else scene.camera


def _switches(scene) -> list[tuple[float, bpy.types.Object]]:
    """The scene frames at which markers switch cameras, in order, and to which; Blender passes over cameras
    that do not render."""
    bound = [marker for marker in scene.timeline_markers if marker.camera and not marker.camera.hide_render]
    bound.sort(key=lambda marker: marker.frame)
    return [(to_scene(scene, marker.frame), marker.camera) for marker in bound]


def _seen_at(switches: list[tuple[float, bpy.types.Object]], frame: int) -> bpy.types.Object | None:
    """The camera of the last switch so far, or else of the first; None without any."""
    if not switches:
        return None
    return switches[max(bisect_right(switches, frame, key=itemgetter(0)) - 1, 0)][1]


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
            frames = set(_keyed_frames(context, settings, clip_range.times))
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


def _keyed_frames(context, settings, times: ClipTimes) -> Iterator[float]:
    """The scene frames at which the subjects are keyed, or what moves them is: controls, other armatures,
    instancers, what drivers read."""
    scene = context.scene
    span = to_animation(scene, times.start), to_animation(scene, times.at(times.num_frames - 1))
    for armature, instancers in find_armatures(find_subjects(context, settings)):
        for block in movers([armature, *instancers]):
            yield from (to_scene(scene, frame) for frame in keyed_frames(block, span))
