"""Previews of clips that are being generated, as icons that a panel can show large."""

from __future__ import annotations

import os
from collections.abc import Container

import bpy.utils.previews
import imbuf
import numpy as np

from ..shared.messages import Preview

SIDE = 256
"""Longest side, in pixels, that is handed to Blender."""

MAX_FILES = 32
"""Icons of files that are kept."""

_icons: bpy.utils.previews.ImagePreviewCollection | None = None
_shown: dict[str, Preview] = {}
_sizes: dict[str, tuple | None] = {}


def icon_of(preview: Preview) -> int:
    """The icon of a job's latest preview."""
    key = preview.job
    if _shown.get(key) is not preview:
        if key not in _icons:
            _icons.new(key)
        stride = -(-max(preview.image.shape[:2]) // SIDE)
        image = preview.image[::-stride, ::stride].astype(np.float32) / 255
        pixels = np.ones((*image.shape[:2], 4), np.float32)
        pixels[..., :3] = image
        icon = _icons[key]
        icon.image_size = image.shape[1], image.shape[0]
        icon.image_pixels_float.foreach_set(pixels.ravel())
        _shown[key] = preview
    return _icons[key].icon_id


def drop_all_but(jobs: Container[str]) -> None:
    """Give up the icons of jobs that have no preview any more."""
    for job in [job for job in _shown if job not in jobs]:
        del _shown[job]
        del _icons[job]


def file_icon(path: str) -> int:
    """The icon of a picture file; 0 when it is not there."""
    key = f"file {path}"
    if key not in _icons:
        if not os.path.isfile(path):
            return 0
        for other in [name for name in _icons if name.startswith("file ")][MAX_FILES - 1 :]:
            del _icons[other]
        _icons.load(key, path, "IMAGE")
    return _icons[key].icon_id


def size_of(path: str) -> tuple[int, int] | None:
    """Width and height of a picture, None when it can't be read; read again only when it changes."""
    try:
        changed = os.stat(path).st_mtime_ns
    except OSError:
        return None
    if _sizes.get("path") != (path, changed):
        _sizes.clear()
        try:
            _sizes["size"] = tuple(imbuf.load(path).size)
        except (OSError, ValueError):
            _sizes["size"] = None
        _sizes["path"] = path, changed
    return _sizes["size"]


def register() -> None:
    global _icons
    _icons = bpy.utils.previews.new()


def unregister() -> None:
    _shown.clear()
    bpy.utils.previews.remove(_icons)
