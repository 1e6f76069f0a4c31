"""The subject's shadow on what is behind it: taken out where it lay in the first frame, put in where it
falls in each frame, as dark as the picture shows it."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

FULL, NONE = 0.8, 0.04
"""Cells above the one part of the shadow's depth lie in it, those that hold back less than the other of the
light lie out of it."""
DEPTH = 90
"""Percentile of what a shadow's cells hold back that is its depth: where several lights throw shadows, hardly
any cell lies in all of them."""
RING = 41
"""Pixels around the shadow within which the ground is compared with it."""
EDGE = 2
"""Pixels around the subject that say nothing about the ground."""
STEEP = 1.6
"""Maps are coarse: what falls on a cell's middle only is spread over several. So edges are made steeper."""
RIM = 8
"""Pixels from a shadow's edge within which it is filled in rather than lit: its maps are coarse."""
LEAST = 0.06
"""A shadow that takes less than this of the light can't be told from the ground's own shades."""
ASIDE = 0.14
"""As a share of the root of its subject's area: how far a shadow is looked for beside its place."""
FEW, RING_CELLS = 12, 7
"""Cells that tell how dark a shadow is at least, and across which the ground beside it is compared."""
TILE = 48
AGREEING = 0.7
"""In so many of the places along the shadow's edge the picture must be darker within."""


class Shadow:
    """`maps` [F, h, w] uint8 are how much of the light that can be held back is held back from each cell;
    `light` [3] is what is left of each colour where all of it is, `brightest` [3] how bright the ground
    around the shadow gets."""

    def __init__(self, maps: np.ndarray, light: np.ndarray, brightest: np.ndarray, size: tuple[int, int]):
        self._maps, self._light, self._brightest, self._size = maps, light, brightest, size

    @classmethod
    def of(
        cls,
        maps: np.ndarray | None,
        image: np.ndarray,
        subject: np.ndarray,
        about: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Shadow | None:
        """From a request's shadow maps; None where it has none, or where the picture does not show the
        shadow: a painted one may have none. `subject` [H, W] bool is where the subject is in the first frame.
        Where that is not in the first pose `about` moves the first map as the subject was."""
        if maps is None or not maps[0].any():
            return None
        height, width = subject.shape
        if about is not None:
            maps = maps.copy()
            maps[0] = _seek(image, about(maps[0]), subject)
        found = _measure(image, _full(maps[0], (width, height)), subject)
        return cls(maps, *found, (width, height)) if found is not None else None

    def remove(self, image: np.ndarray, exact: bool) -> tuple[np.ndarray, np.ndarray]:
        """The picture without the first frame's shadow, and [H, W] bool where its edge runs, which its low
        resolution leaves wrong: to be filled in, as is all of a shadow whose place is not known `exact`."""
        share = _full(self._maps[0], self._size)
        if not exact:
            square = np.ones((2 * RIM + 1,) * 2, np.uint8)
            return image, cv2.dilate((share > NONE).view(np.uint8), square) > 0
        lit = image / (1 - share[..., None] * (1 - self._light))
        # What was no darker than the ground beside it would shine.
        lit = np.where(share[..., None] > NONE, np.minimum(lit, np.maximum(image, self._brightest)), image)
        around = np.ones((2 * RIM + 1,) * 2, np.uint8)
        even = cv2.dilate(share, around) - cv2.erode(share, around) < NONE
        return np.clip(np.rint(lit), 0, 255).astype(np.uint8), (share > NONE) & ~even

    def cast(self, known: list[tuple[int, float, complex]], behind: np.ndarray) -> np.ndarray:
        """A picture with the shadow that falls in a frame: a mixture of the maps of `known` frames, each
        with its weight and with how far (complex pixels) the subject has gone since."""
        height, width = self._maps.shape[1:]
        cells = np.zeros((height, width), np.float32)
        for frame, weight, moved in known:
            part = self._maps[frame].astype(np.float32) / 255
            if moved:
                shift = [
                    [1, 0, moved.real * width / self._size[0]],
                    [0, 1, moved.imag * height / self._size[1]],
                ]
                part = cv2.warpAffine(part, np.array(shift, np.float32), (width, height))
            cells += weight * part
        x, y, w, h = cv2.boundingRect((cells > 0).view(np.uint8))
        if not w:
            return behind
        rows, columns = slice(max(y - 1, 0), y + h + 1), slice(max(x - 1, 0), x + w + 1)
        across, down = self._size[0] / width, self._size[1] / height
        left, right = round(columns.start * across), round(min(columns.stop, width) * across)
        top, bottom = round(rows.start * down), round(min(rows.stop, height) * down)
        shade = np.rint(255 * _steep(cells[rows, columns], (right - left, bottom - top))).astype(np.uint8)
        levels = np.arange(256)[:, None] / 255 * (1 - self._light)
        factor = cv2.LUT(cv2.merge([shade] * 3), np.rint(255 * (1 - levels)).astype(np.uint8)[None])
        out = behind.copy()
        out[top:bottom, left:right] = cv2.multiply(behind[top:bottom, left:right], factor, scale=1 / 255)
        return out


def _steep(cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps at a picture's size, their edges steeper, between what the cells around have at least and at
    most."""
    square = np.ones((3, 3), np.uint8)
    least, most, share = (
        cv2.resize(each, size, interpolation=cv2.INTER_LINEAR)
        for each in (cv2.erode(cells, square), cv2.dilate(cells, square), cells)
    )
    middle = (least + most) / 2
    return np.clip(middle + STEEP * (share - middle), least, most)


def _seek(image: np.ndarray, cells: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """A shadow's map [h, w] moved to where, near its place, the picture is darkest beneath it."""
    size = cells.shape[::-1]
    shade = np.log(cv2.resize(image, size, interpolation=cv2.INTER_AREA).mean(axis=2) + 1)
    free = cv2.resize(subject.astype(np.float32), size, interpolation=cv2.INTER_AREA) == 0
    reach = int(np.ceil(ASIDE * np.sqrt(subject.sum()) * size[0] / subject.shape[1]))
    best, found = 0.0, cells
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            shift = np.array([[1, 0, right], [0, 1, down]], np.float32)
            moved = cv2.warpAffine(cells, shift, size)
            within = free & (moved > 255 * FULL)
            ring = cv2.dilate(moved, np.ones((RING_CELLS,) * 2, np.uint8)) > 255 * NONE
            beside = free & ring & (moved < 255 * NONE)
            if within.sum() >= FEW and beside.sum() >= FEW:
                dark = shade[beside].mean() - shade[within].mean()
                if dark > best:
                    best, found = dark, moved
    return found


def _full(cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(cells.astype(np.float32) / 255, size, interpolation=cv2.INTER_LINEAR)


def _measure(
    image: np.ndarray, share: np.ndarray, subject: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """[3] what is left of each colour in the shadow, and [3] how bright the ground beside it gets; None when
    the picture has no such shadow there."""
    free = cv2.dilate(subject.view(np.uint8), np.ones((2 * EDGE + 1,) * 2, np.uint8)) == 0
    around = cv2.dilate((share > NONE).view(np.uint8), np.ones((RING, RING), np.uint8)) > 0
    shaded = share[free & (share > NONE)]
    deep = FULL * np.percentile(shaded, DEPTH) if len(shaded) else FULL
    inside, outside = free & (share > deep), free & around & (share < NONE)
    if inside.sum() < 50 or outside.sum() < 50:
        return None
    shades = image.astype(np.float32) + 1
    light = np.exp(
        [np.median(np.log(shades[inside, c])) - np.median(np.log(shades[outside, c])) for c in range(3)]
    )
    light = 1 - (1 - light) / np.median(share[inside])
    if light.mean() > 1 - LEAST:
        return None
    # Where a picture is dark there by chance, it is not so all along the shadow's edge.
    grey = shades.mean(axis=2)
    darker = places = 0
    for top in range(0, image.shape[0], TILE):
        for left in range(0, image.shape[1], TILE):
            tile = slice(top, top + TILE), slice(left, left + TILE)
            within, beside = inside[tile], outside[tile]
            if within.sum() >= 20 and beside.sum() >= 20:
                places += 1
                darker += np.median(grey[tile][within]) < (1 - LEAST / 2) * np.median(grey[tile][beside])
    if places and darker < AGREEING * places:
        return None
    return np.clip(light, 0.05, 1.0), np.percentile(image[outside], 98, axis=0)
