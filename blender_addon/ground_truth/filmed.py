"""Pictures of a strip alone, as its scene's sequencer plays it: trimmed, retimed, with its modifiers.

What is rendered is a copy of the scene without its objects, so nothing of the user's is touched. The strip
fills the picture, whatever its place and size in the edit.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bpy

from ..buttons import OPEN_VIDEO
from ..errors import ExportError
from ..sequencer import footage, strips
from ..texts import say
from .scene_render import MARK, call_render

NAME = "PoseAnything Video"
AT_ONCE = 12
"""Frames rendered between two looks at the window's events."""


def film(
    scene: bpy.types.Scene, strip: bpy.types.Strip, frames: range, longest: int, suffix: str = "jpg"
) -> Iterator[tuple[bytes, int, int]]:
    """Files of what a strip shows at frames of its scene, one after the other, each with width and height,
    whose longer side is at most `longest`. Raises `ExportError`."""
    if frames.start < 0:
        raise ExportError("The strip begins before frame 0; move it to the right.")
    width, height = _size(strip, longest)
    folder = Path(tempfile.mkdtemp(prefix="poseanything-video-"))
    copy = scene.copy()
    try:
        _stage(copy, strip, width, height, suffix)
        copy.render.filepath = str(folder / "frame")
        for begin in range(frames.start, frames.stop, AT_ONCE):
            copy.frame_start, copy.frame_end = begin, min(begin + AT_ONCE, frames.stop) - 1
            call_render("EXEC_DEFAULT", copy, animation=True, what=say("The video's frames"))
            for path in sorted(folder.iterdir()):
                data = path.read_bytes()
                path.unlink()
                yield data, width, height
    finally:
        _discard(copy)
        shutil.rmtree(folder, ignore_errors=True)


def _size(strip: bpy.types.Strip, longest: int) -> tuple[int, int]:
    width, height = footage.size_of(strip)
    if not (width and height):
        raise ExportError(
            say(
                "{strip} shows no picture: its file is missing, or no video; choose another.",
                strip=strip.name,
            ),
            *OPEN_VIDEO,
        )
    scale = min(1.0, longest / max(width, height))
    return max(round(width * scale), 16), max(round(height * scale), 16)


def _stage(copy: bpy.types.Scene, strip: bpy.types.Strip, width: int, height: int, suffix: str) -> None:
    copy.name, copy[MARK] = NAME, True
    copy.animation_data_clear()
    for held in (copy.collection.children, copy.collection.objects):
        for each in list(held):
            held.unlink(each)
    for channel in copy.sequence_editor.channels:
        channel.mute = False
    found = {each.name: each for each in strips.all_strips(copy)}
    shown = found[strip.name]
    kept, holder = {shown.name}, shown.parent_meta()
    while holder is not None:
        kept.add(holder.name)
        holder = holder.parent_meta()
    for name, each in found.items():
        each.mute = name not in kept
    shown.blend_type, shown.blend_alpha = "REPLACE", 1.0
    transform, (whole_width, whole_height) = shown.transform, footage.size_of(strip)
    transform.offset_x = transform.offset_y = transform.rotation = 0
    transform.scale_x, transform.scale_y = width / whole_width, height / whole_height
    for side in ("min_x", "max_x", "min_y", "max_y"):
        setattr(shown.crop, side, 0)
    render = copy.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = width, height, 100
    render.pixel_aspect_x = render.pixel_aspect_y = 1.0
    render.use_sequencer, render.use_overwrite, render.use_file_extension = True, True, True
    for unwanted in ("use_border", "use_compositing", "use_multiview", "use_stamp", "use_placeholder"):
        setattr(render, unwanted, False)
    copy.frame_step = 1
    output = render.image_settings
    if hasattr(output, "media_type"):
        output.media_type = "IMAGE"
    output.file_format = {"jpg": "JPEG", "png": "PNG"}[suffix]
    output.color_mode, output.quality = "RGB", 92
    try:
        copy.view_settings.view_transform = "Standard"
    except TypeError:
        pass  # a studio's colour configuration without that name
    copy.view_settings.exposure, copy.view_settings.gamma = 0.0, 1.0


def _discard(copy: bpy.types.Scene) -> None:
    try:
        bpy.data.scenes.remove(copy)
    except ReferenceError:
        pass  # another file was opened meanwhile
