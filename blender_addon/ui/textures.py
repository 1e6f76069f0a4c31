"""Pictures from files, for drawing: read by a timer, one at a time, so that no redraw waits for a disk."""

from __future__ import annotations

import os

import bpy
import gpu
import numpy as np

from ..errors import ExportError
from ..ground_truth.first_frame import read_picture
from ..live.picture import make_texture

MOST = 24
"""Pictures that are kept, those that were drawn last."""

_kept: dict[tuple[str, int], gpu.types.GPUTexture | None] = {}
_wanted: list[tuple[str, int]] = []


def texture_of(path: str) -> gpu.types.GPUTexture | None:
    """A picture file; None while it is not read yet, or where it can't be."""
    try:
        key = path, os.stat(path).st_mtime_ns
    except OSError:
        return None
    if key in _kept:
        _kept[key] = _kept.pop(key)
        return _kept[key]
    if key not in _wanted:
        _wanted.append(key)
        if not bpy.app.timers.is_registered(_read):
            bpy.app.timers.register(_read, first_interval=0.01)
    return None


def _read() -> float | None:
    if any(window.screen.is_animation_playing for window in bpy.context.window_manager.windows):
        return 0.5
    key = _wanted.pop()
    del _wanted[:-MOST]
    try:
        pixels = read_picture(key[0])
        rgba = np.ones((*pixels.shape[:2], 4), np.float32)
        rgba[..., :3] = pixels[::-1] / np.float32(255)
        _kept[key] = make_texture(rgba)
    except ExportError:
        _kept[key] = None
    while len(_kept) > MOST:
        _kept.pop(next(iter(_kept)))
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                area.tag_redraw()
    return 0.01 if _wanted else None


def register() -> None:
    pass


def unregister() -> None:
    if bpy.app.timers.is_registered(_read):
        bpy.app.timers.unregister(_read)
    _kept.clear()
    _wanted.clear()
