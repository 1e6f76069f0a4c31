"""The strip whose subject's poses are taken: found by what it carries, and its time.

What a strip shows is told by *positions*: frames of its content as it was when the poses were found, counted
from the content's start. So a strip that is moved or trimmed afterwards takes its poses along, and so does
one whose speed is changed.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import bpy
import numpy as np

from ..times import frame_rate
from . import strips

ID = "poseanything_video"
"""The custom property by which the strip is known."""
KINDS = ("MOVIE", "IMAGE")


@dataclass(frozen=True)
class Clock:
    """How a strip's content passed when its poses were found: `keys` are its retiming keys, counted from the
    content's start."""

    keys: tuple[float, ...]

    @classmethod
    def of(cls, strip: bpy.types.Strip) -> Clock:
        begin = strips.content_start(strip)
        keys = tuple(float(key.timeline_frame - begin) for key in getattr(strip, "retiming_keys", ()))
        return cls(keys or (0.0, float(_content_length(strip))))

    def position(self, strip: bpy.types.Strip, frame: float) -> float | None:
        """The position that a strip shows at a frame of its scene; None where its speed was changed in a way
        that can't be followed."""
        at, now = frame - strips.content_start(strip), Clock.of(strip).keys
        if now == self.keys:
            return at
        if len(now) != len(self.keys):
            return None
        return float(np.interp(at, now, self.keys))


def _content_length(strip: bpy.types.Strip) -> int:
    return strip.content_duration if hasattr(strip, "content_duration") else strip.frame_duration


def usable(strip: bpy.types.Strip | None) -> bool:
    """Whether a strip shows pictures that move."""
    return strip is not None and strip.type in KINDS and (strip.type == "MOVIE" or len(strip.elements) > 1)


def active_strip(context) -> bpy.types.Strip | None:
    """The active strip of the sequencer that the user sees, if poses can be found in it."""
    editor = strips.sequencer_scene(context).sequence_editor
    strip = editor.active_strip if editor is not None else None
    return strip if usable(strip) else None


def mark(strip: bpy.types.Strip) -> str:
    """Make a strip known under an id, which it keeps."""
    if ID not in strip:
        strip[ID] = uuid.uuid4().hex
    return strip[ID]


def find(identity: str) -> tuple[bpy.types.Scene, bpy.types.Strip] | None:
    """The strip of an id, and the scene that it lies in."""
    for scene in bpy.data.scenes if identity else ():
        for strip in strips.all_strips(scene):
            if strip.get(ID) == identity:
                return scene, strip
    return None


def add_movie(scene: bpy.types.Scene, path: str, frame: int) -> bpy.types.Strip:
    """Lay a movie onto a scene's sequencer. Raises `RuntimeError` where Blender can't."""
    found = strips.strips_of(scene)
    name = bpy.path.basename(path)
    strip = found.new_movie(name=name, filepath=path, channel=1, frame_start=frame, fit_method="FIT")
    strip.channel = strips.free_channel(
        [other for other in found if other != strip], frame, max(_content_length(strip), 1)
    )
    strips.make_active(scene, strip)
    return strip


def size_of(strip: bpy.types.Strip) -> tuple[int, int]:
    """Width and height of a strip's pictures, (0, 0) where they can't be read."""
    element = strip.elements[0] if len(strip.elements) else None
    return (element.orig_width, element.orig_height) if element is not None else (0, 0)


def shown_span(scene: bpy.types.Scene, edit: bpy.types.Scene, strip: bpy.types.Strip) -> tuple[int, int]:
    """The first and last frame of a scene at which a strip of another one's sequencer is shown."""
    rate = frame_rate(scene) / frame_rate(edit)
    first, end = strips.span(strip)
    return round(first * rate), max(round(end * rate) - 1, round(first * rate))


def edit_frame(scene: bpy.types.Scene, edit: bpy.types.Scene, frame: float) -> float:
    """The other way round: the frame of the sequencer's scene at a frame of a scene."""
    return frame * frame_rate(edit) / frame_rate(scene)
