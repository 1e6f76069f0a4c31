"""The picture that the clip begins with, from any picture file, on the clip's pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import bpy
import numpy as np

from ..errors import ExportError
from ..texts import say
from ..view import Fit, fit


@dataclass(frozen=True)
class Alignment:
    """How a picture that covers the clip is then scaled about the clip's centre, and moved to the right and
    up by fractions of the clip's width and height."""

    scale: float = 1.0
    x: float = 0.0
    y: float = 0.0

    def box(self, placed: Fit) -> tuple[float, float, float, float]:
        """Left, top, width and height of the whole picture in pixels of the clip, y down."""
        left = (0.5 + self.x) * placed.width - self.scale * (placed.left + placed.width / 2)
        top = (0.5 - self.y) * placed.height - self.scale * (placed.top + placed.height / 2)
        return left, top, self.scale * placed.scaled_width, self.scale * placed.scaled_height


def fit_picture(
    pixels: np.ndarray, width: int, height: int, alignment: Alignment = Alignment()
) -> Iterator[None]:
    """A picture [H, W, 3] uint8 sRGB fitted to the clip by the rule of `view.fit` and aligned, pausing on the
    way; the generator's return value is [height, width, 3] of the same. Where the picture has no pixels its
    edge goes on."""
    box = left, top, across, down = alignment.box(fit(pixels.shape[1], pixels.shape[0], width, height))
    if box == (0, 0, pixels.shape[1], pixels.shape[0]) and pixels.shape[:2] == (height, width):
        return pixels
    rows = yield from _resample(pixels, down, -top, height)
    columns = yield from _resample(rows.transpose(1, 0, 2), across, -left, width)
    return (columns.transpose(1, 0, 2) + 0.5).astype(np.uint8)


def _resample(lines: np.ndarray, scaled: float, first: float, count: int) -> Iterator[None]:
    """Lines `first` to `first + count` of [N, M, 3] lines scaled to `scaled` ones: the mean over the area
    that each covers when there are fewer than before, a linear blend of two when there are more.
    float32."""
    step = len(lines) / scaled
    begin = (first + np.arange(count)) * step
    if step < 1:
        begin, step = begin + (step - 1) / 2, 1.0
    taps = np.floor(begin).astype(int)[:, None] + np.arange(int(np.ceil(step)) + 1)
    shares = np.minimum(taps + 1, begin[:, None] + step) - np.maximum(taps, begin[:, None])
    shares = np.clip(shares, 0, None).astype(np.float32) / np.float32(step)
    taps = np.clip(taps, 0, len(lines) - 1)
    out = np.zeros((count, *lines.shape[1:]), np.float32)
    for tap, share in zip(taps.T, shares.T):
        for begin in range(0, count, 128):
            batch = slice(begin, begin + 128)
            out[batch] += lines[tap[batch]] * share[batch, None, None]
            yield
    return out


def read_picture(path: str) -> np.ndarray:
    """[H, W, 3] uint8 sRGB from any picture file that Blender reads, transparency over black; not to be
    written to, since it is kept until another picture is read or the file changes. Raises `ExportError`."""
    try:
        found = os.stat(bpy.path.abspath(path))
    except OSError:
        raise _unreadable(path) from None
    return _read(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@lru_cache(maxsize=1)
def _read(path: str, *_: int) -> np.ndarray:
    # Loading a picture has Blender sort the scene's dependencies anew, 30 ms on a generated rig.
    # A library of its own (`BlendData.temp_data()`) would spare that, but it ends 4.2 to 5.0 now and then
    # beside a busy thread.
    try:
        image = bpy.data.images.load(path)
    except RuntimeError:
        raise _unreadable(path) from None
    try:
        width, height = image.size
        if not width or not height:
            raise _unreadable(path)
        pixels = np.empty((height, width, image.channels), np.float32)
        image.pixels.foreach_get(pixels.ravel())
        linear = image.is_float
        premultiplied = image.alpha_mode == "PREMUL"
    finally:
        bpy.data.images.remove(image)
    colour = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    if pixels.shape[2] == 4 and not premultiplied and (pixels[..., 3] < 1).any():
        colour = colour * pixels[..., 3:]
    if linear:
        colour = np.where(
            colour <= 0.0031308, colour * 12.92, 1.055 * np.maximum(colour, 0.0031308) ** (1 / 2.4) - 0.055
        )
    picture = (np.clip(colour[::-1], 0, 1) * 255 + 0.5).astype(np.uint8)
    picture.flags.writeable = False
    return picture


def _unreadable(path: str) -> ExportError:
    return ExportError(say("The picture {path} can't be read; choose another one.", path=path))
