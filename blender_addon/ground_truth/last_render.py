"""The last render, where it is of the frame and the camera that are wanted."""

from __future__ import annotations

import contextlib
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import bpy
import numpy as np

from ..errors import ExportError
from ..texts import say
from .first_frame import read_picture

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_last_render(scene: bpy.types.Scene, camera: bpy.types.Object, frame: float) -> np.ndarray:
    """[H, W, 3] uint8 sRGB. Raises `ExportError` when there is no render, or it shows something else by the
    metadata that Blender keeps with it."""
    with tempfile.TemporaryDirectory(prefix="poseanything-") as folder:
        path = Path(folder, "render.png")
        with _writing_png(scene.render.image_settings):
            try:
                bpy.data.images["Render Result"].save_render(str(path), scene=scene)
            except (KeyError, RuntimeError):
                raise ExportError(
                    "This scene has no render yet; press F12 at the clip's first frame."
                ) from None
        said = dict(read_texts(path.read_bytes()))
        shown = said.get("Scene"), said.get("Camera"), said.get("Frame", "").lstrip("0") or "0"
        if shown != (scene.name, camera.name, str(frame)):
            if None in shown:
                raise ExportError(
                    "The last render does not say what it shows; render the clip's first frame again."
                )
            raise ExportError(
                say(
                    "The last render shows frame {shown} of {shown_scene} through {shown_camera}, the "
                    "clip begins with frame {frame:g} of {scene} through {camera}; go there and press F12.",
                    shown=shown[2],
                    shown_scene=shown[0],
                    shown_camera=shown[1],
                    frame=frame,
                    scene=scene.name,
                    camera=camera.name,
                )
            )
        return read_picture(str(path))


@contextlib.contextmanager
def _writing_png(output: bpy.types.ImageFormatSettings) -> Iterator[None]:
    """Each of these settings may change those after it: all are read before the first is touched."""
    wanted = {"file_format": "PNG", "color_mode": "RGB", "color_depth": "8"}
    if hasattr(output, "media_type"):
        wanted = {"media_type": "IMAGE", **wanted}
    before = {name: getattr(output, name) for name in wanted}
    for name, value in wanted.items():
        setattr(output, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(output, name, value)


def read_texts(png: bytes) -> Iterator[tuple[str, str]]:
    """The keywords and texts of a PNG file."""
    place = len(SIGNATURE)
    while place + 8 <= len(png):
        length, kind = int.from_bytes(png[place : place + 4], "big"), png[place + 4 : place + 8]
        data = png[place + 8 : place + 8 + length]
        if kind in (b"tEXt", b"zTXt"):
            keyword, _, text = data.partition(b"\0")
            try:
                text = zlib.decompress(text[1:]) if kind == b"zTXt" else text
            except zlib.error:
                text = b""
            yield keyword.decode("latin-1"), text.decode("latin-1")
        place += 12 + length
