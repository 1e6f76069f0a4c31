"""The stretches of time that an animator means by what is selected or shown in a time line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..rig.animation import all_curves, movers
from ..rig.subjects import find_armatures
from ..sequencer import strips
from ..texts import say
from ..times import frame_rate, to_scene
from .subjects import find_subjects


@dataclass(frozen=True)
class Span:
    """Scene frames `first` to `last`, both included, and what they are."""

    label: str
    icon: str
    first: int
    last: int


def scene_span(context) -> tuple[int, int]:
    """The first and the last frame that the scene plays."""
    scene = context.scene
    if scene.use_preview_range:
        return scene.frame_preview_start, scene.frame_preview_end
    return scene.frame_start, scene.frame_end


def spans(context) -> list[Span]:
    """Every stretch that is meant by something, the most particular first; none is shorter than two
    frames."""
    found = [*_selected_strips(context), *_selected_keys(context), *_markers(context)]
    if context.scene.use_preview_range:
        found.append(Span(say("Preview Range"), "PREVIEW_RANGE", *scene_span(context)))
    scene = context.scene
    found.append(Span("Scene", "SCENE_DATA", scene.frame_start, scene.frame_end))
    return [span for span in found if span.last > span.first]


def _markers(context) -> Iterator[Span]:
    """Between selected markers, or from a single one to the next; and the shot that the playhead is in."""
    scene = context.scene
    at = {marker: round(to_scene(scene, marker.frame)) for marker in scene.timeline_markers}
    frames = sorted(set(at.values()))
    chosen = sorted({frame for marker, frame in at.items() if marker.select})
    if len(chosen) > 1:
        yield Span(say("Selected Markers"), "MARKER_HLT", chosen[0], chosen[-1])
    elif chosen:
        following = [frame for frame in frames if frame > chosen[0]]
        yield Span(
            say("From Marker"), "MARKER_HLT", chosen[0], following[0] - 1 if following else scene.frame_end
        )
    before = [frame for frame in frames if frame <= scene.frame_current]
    after = [frame for frame in frames if frame > scene.frame_current]
    if before or after:
        first = max(before, default=scene.frame_start)
        yield Span(say("Shot at the Playhead"), "MARKER", first, min(after, default=scene.frame_end + 1) - 1)


def _selected_keys(context) -> Iterator[Span]:
    frames = selected_keys(context)
    if frames:
        yield Span(say("Selected Keys"), "KEYFRAME_HLT", round(min(frames)), round(max(frames)))


def selected_keys(context) -> list[float]:
    """The scene frames of the selected keys of the subjects and of what moves them."""
    rigs = find_armatures(find_subjects(context, context.scene.poseanything))
    blocks = movers([each for rig, instancers in rigs for each in (rig, *instancers)])
    return [
        to_scene(context.scene, key.co.x)
        for block in blocks
        for curve in all_curves(block)
        for key in curve.keyframe_points
        if key.select_control_point
    ]


def _selected_strips(context) -> Iterator[Span]:
    """The time under the selected strips, in frames of the scene."""
    if context.area is None or context.area.type != "SEQUENCE_EDITOR":
        return
    edit = strips.sequencer_scene(context)
    chosen = [strip for strip in strips.all_strips(edit) if strip.select]
    if chosen:
        first, end = (f(strips.span(strip)[k] for strip in chosen) for k, f in ((0, min), (1, max)))
        rate = frame_rate(context.scene) / frame_rate(edit)
        yield Span(say("Selected Strips"), "SEQUENCE", round(first * rate), round(end * rate) - 1)
