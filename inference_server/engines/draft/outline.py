"""What the part maps of later frames say about the drawing: where it goes too far, and where it leaves
holes."""

from __future__ import annotations

import cv2
import numpy as np

from .inpainting import spread

COARSEST = 16
"""Cells larger than so many pixels say too little about an outline."""

SOLID = 250
"""Coverage from which on nothing of what is behind shows through."""


class Outline:
    """The subject's outline in every frame, from part maps [F, h, w]."""

    def __init__(self, part_maps: np.ndarray, size: tuple[int, int]):
        self.size = size
        self.maps = (part_maps > 0).view(np.uint8) * np.uint8(255)

    @classmethod
    def of(cls, part_maps: np.ndarray | None, owners: np.ndarray) -> Outline | None:
        """None without part maps, or with such as are too coarse or at odds with the first frame (`owners`
        [H, W])."""
        height, width = owners.shape
        if part_maps is None or not part_maps.size or part_maps.shape[1] * COARSEST < height:
            return None
        outline = cls(part_maps, (width, height))
        first = (
            cv2.resize((owners > 0).astype(np.uint8), part_maps.shape[:0:-1], interpolation=cv2.INTER_NEAREST)
            > 0
        )
        same, either = (first & (part_maps[0] > 0)).sum(), (first | (part_maps[0] > 0)).sum()
        return outline if same >= 0.5 * max(either, 1) else None

    def correct(self, index: int, canvas: np.ndarray, coverage: np.ndarray, behind: np.ndarray) -> None:
        """Put the background `behind` back where nothing of the subject can be, and close the holes inside
        it, in place. `coverage` [height, width] uint8 is how opaque the subject was drawn."""
        cells = self.maps[index]
        near = cv2.GaussianBlur(cv2.dilate(cells, np.ones((3, 3), np.uint8)), (5, 5), 1)
        outside = cv2.compare(cv2.resize(near, self.size, interpolation=cv2.INTER_LINEAR), 96, cv2.CMP_LT)
        cv2.copyTo(behind, outside, canvas)
        bare = cv2.compare(coverage, SOLID, cv2.CMP_LT)
        inside = cv2.erode(cells, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
        hole = cv2.morphologyEx(
            cv2.bitwise_and(self._within(inside), bare), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)
        )
        x, y, w, h = cv2.boundingRect(hole)
        if w and h:
            area = (slice(max(y - h - 32, 0), y + 2 * h + 32), slice(max(x - w - 32, 0), x + 2 * w + 32))
            # A hole goes on to the outline, and to what is drawn beside it.
            step = 2 * round(self.size[0] / cells.shape[1]) + 1
            hole = cv2.dilate(hole[area], np.ones((step, step), np.uint8))
            hole &= self._within(cv2.GaussianBlur(cells, (3, 3), 0))[area] & bare[area]
            _close(canvas[area], hole, coverage[area])

    def _within(self, cells):
        return cv2.compare(cv2.resize(cells, self.size, interpolation=cv2.INTER_LINEAR), 127, cv2.CMP_GT)


def _close(canvas, hole, coverage):
    """Paint a hole with the colours around it that belong to the subject."""
    solid = cv2.compare(coverage, SOLID, cv2.CMP_GE)
    size = (-(-canvas.shape[1] // 4), -(-canvas.shape[0] // 4))
    colour = cv2.resize(cv2.bitwise_and(canvas, canvas, mask=solid), size, interpolation=cv2.INTER_AREA)
    weight = cv2.resize(solid, size, interpolation=cv2.INTER_AREA)
    known = weight > 127
    if known.any():
        colour = spread(colour * (255.0 / np.maximum(weight, 1))[..., None], known)
        colour = cv2.resize(colour, canvas.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        soft = cv2.GaussianBlur(hole, (0, 0), 1.5).astype(np.float32)[..., None] / 255
        canvas[:] = np.rint(canvas + (np.clip(colour, 0, 255) - canvas) * soft)
