"""Takes of one shot against each other: one alone, two in turn, two side by side along a line."""

from __future__ import annotations

import bpy

from ..takes.take import TakeError
from . import strips

WHOLE = 1.0
"""The share of the picture at which nothing is wiped."""
_CROP = "poseanything_crop"
"""The custom property that keeps a strip's own crop while it is wiped."""


def strips_of_take(scene: bpy.types.Scene, take_id: str) -> list[bpy.types.Strip]:
    """A take's strips, its frames before its movie."""
    found = [strip for strip in strips.all_strips(scene) if strip.get(strips.TAKE_ID) == take_id]
    return sorted(found, key=lambda strip: strip.type == "MOVIE")


def alternatives(scene: bpy.types.Scene, take_id: str) -> list[str]:
    """The ids of the other takes that lie where a take lies in time, lowest channel first."""
    spans = [strips.span(strip) for strip in strips_of_take(scene, take_id)]
    others = {}
    for strip in sorted(strips.all_strips(scene), key=lambda strip: strip.channel):
        other = strip.get(strips.TAKE_ID)
        start, end = strips.span(strip)
        if other not in (None, take_id) and any(start < last and first < end for first, last in spans):
            others.setdefault(other)
    return list(others)


def set_shown(scene: bpy.types.Scene, take_id: str, shown: bool) -> None:
    """Show a take, by its movie where it has one, or mute all of its strips."""
    found = strips_of_take(scene, take_id)
    movies = [strips.span(strip) for strip in found if strip.type == "MOVIE"]
    for strip in found:
        start, end = strips.span(strip)
        covered = strip.type != "MOVIE" and any(first < end and start < last for first, last in movies)
        strip.mute = not shown or covered


def is_shown(scene: bpy.types.Scene, take_id: str) -> bool:
    return any(not strip.mute for strip in strips_of_take(scene, take_id))


def is_solo(scene: bpy.types.Scene, take_id: str) -> bool:
    """Whether a take is shown, and of those beside it none is."""
    others = alternatives(scene, take_id)
    return is_shown(scene, take_id) and not any(is_shown(scene, other) for other in others)


def solo(scene: bpy.types.Scene, take_id: str) -> None:
    """Show a take alone; where it is alone already, show those beside it again."""
    shown = is_solo(scene, take_id)
    for other in alternatives(scene, take_id):
        set_shown(scene, other, shown)
    set_shown(scene, take_id, True)


def switch(scene: bpy.types.Scene, first: str, second: str) -> str:
    """Show one of two takes alone, the one that was not shown; gives its id."""
    chosen, other = (second, first) if is_solo(scene, first) else (first, second)
    wipe(scene, first, second, WHOLE)
    for beside in alternatives(scene, chosen):
        set_shown(scene, beside, False)
    set_shown(scene, other, False)
    set_shown(scene, chosen, True)
    return chosen


def wipe(scene: bpy.types.Scene, first: str, second: str, share: float) -> None:
    """Show `first` left of a line and `second` right of it; the line lies at `share` (0 to 1) of the width.
    At `WHOLE` both are uncropped. Raises `TakeError` when one has no strip."""
    shown = []
    for take_id in (first, second):
        found = strips_of_take(scene, take_id)
        if not found:
            raise TakeError("Show both takes first; one of them has no strip.")
        shown.append(found[-1])
        if share < WHOLE:
            set_shown(scene, take_id, True)
    for strip, left in zip(shown, (True, False)):
        before = tuple(strip.get(_CROP, (strip.crop.min_x, strip.crop.max_x)))
        strip.crop.min_x, strip.crop.max_x = before
        if share >= WHOLE:
            strip.pop(_CROP, None)
            continue
        strip[_CROP] = before
        width = strips.take_of(strip).record.get("width", 0)
        if left:
            strip.crop.max_x = max(before[1], round(width * (1 - share)))
        else:
            strip.crop.min_x = max(before[0], round(width * share))
