"""What the part maps of later frames say about the drawing: where it goes too far, and where it leaves holes."""

from __future__ import annotations

import cv2
import numpy as np

from .fill import spread

COARSEST = 16
"""Cells larger than so many pixels say too little about an outline."""


class Outline:
    """The subject's outline in every frame, from part maps [F, h, w]."""

    def __init__(self, part_maps: np.ndarray, size: tuple[int, int]):
        self.size = size
        self.maps = (part_maps > 0).view(np.uint8) * np.uint8(255)

    @classmethod
    def of(cls, part_maps: np.ndarray | None, owners: np.ndarray) -> Outline | None:
        """None without part maps, or with such as are too coarse or at odds with the first frame (`owners` [H, W])."""
        height, width = owners.shape
        if part_maps is None or not part_maps.size or part_maps.shape[1] * COARSEST < height:
            return None
        outline = cls(part_maps, (width, height))
        first = cv2.resize((owners > 0).astype(np.uint8), part_maps.shape[:0:-1], interpolation=cv2.INTER_NEAREST) > 0
        same, either = (first & (part_maps[0] > 0)).sum(), (first | (part_maps[0] > 0)).sum()
        return outline if same >= 0.5 * max(either, 1) else None

    def correct(self, index: int, canvas: np.ndarray, coverage: np.ndarray, behind: np.ndarray) -> None:
        """Put the background `behind` back where nothing of the subject can be, and close the holes inside it, in place.
        `coverage` [height, width] uint8 is how opaque the subject was drawn."""
        cells = self.maps[index]
        near = cv2.GaussianBlur(cv2.dilate(cells, np.ones((3, 3), np.uint8)), (5, 5), 1)
        outside = cv2.compare(cv2.resize(near, self.size, interpolation=cv2.INTER_LINEAR), 96, cv2.CMP_LT)
        cv2.copyTo(behind, outside, canvas)
        inside = cv2.erode(cells, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
        inside = cv2.resize(inside, self.size, interpolation=cv2.INTER_LINEAR)
        hole = cv2.bitwise_and(cv2.compare(inside, 127, cv2.CMP_GT), cv2.compare(coverage, 128, cv2.CMP_LT))
        x, y, w, h = cv2.boundingRect(hole)
        if w and h:
            rows, columns = slice(max(y - h - 32, 0), y + 2 * h + 32), slice(max(x - w - 32, 0), x + 2 * w + 32)
            _close(canvas[rows, columns], hole[rows, columns], coverage[rows, columns])


def _close(canvas, hole, coverage):
    """Paint a hole with the colours around it that belong to the subject."""
    solid = cv2.compare(coverage, 250, cv2.CMP_GT)
    size = (-(-canvas.shape[1] // 4), -(-canvas.shape[0] // 4))
    colour = cv2.resize(cv2.bitwise_and(canvas, canvas, mask=solid), size, interpolation=cv2.INTER_AREA)
    weight = cv2.resize(solid, size, interpolation=cv2.INTER_AREA)
    known = weight > 127
    if known.any():
        colour = spread(colour * (255.0 / np.maximum(weight, 1))[..., None], known)
        colour = cv2.resize(colour, canvas.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        soft = cv2.GaussianBlur(hole, (0, 0), 1.5).astype(np.float32)[..., None] / 255
        canvas[:] = np.rint(canvas + (np.clip(colour, 0, 255) - canvas) * soft)
