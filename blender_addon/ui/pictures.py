"""Rough pictures of clips in the making, as icons that a panel can show large."""

from __future__ import annotations

import bpy.utils.previews
import numpy as np

from ..shared.messages import Preview

SIDE = 256
"""Longest side, in pixels, that is handed to Blender."""

_icons: bpy.utils.previews.ImagePreviewCollection | None = None
_shown: dict[str, Preview] = {}


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


def register() -> None:
    global _icons
    _icons = bpy.utils.previews.new()


def unregister() -> None:
    _shown.clear()
    bpy.utils.previews.remove(_icons)
