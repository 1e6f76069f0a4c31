"""The part of a picture around its subject, for a model that works at a small size: what it sees there is
larger, and what lies far from the subject stays as it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from shared.pose import Polyline, PoseSequence

MARGIN = 0.22
"""Room around the strokes on each side, as a share of their longer side: for flesh and shadow."""
FADE = 0.12
"""Of a crop's sides, along which a change fades towards an edge inside the picture."""


@dataclass(frozen=True)
class Crop:
    """`width` x `height` pixels from (`left`, `top`) on."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        """A view of `[H, W, ...]`."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def shrunk(self, image: np.ndarray, width: int, height: int) -> np.ndarray:
        """uint8 `[height, width, 3]`: the crop of `[H, W, 3]`, scaled."""
        return cv2.resize(self.cut(image), (width, height), interpolation=cv2.INTER_AREA)

    def weights(self, width: int, height: int) -> np.ndarray:
        """float32 [crop's height, crop's width, 1]: 1 inside and at the edges of the picture of `width` x
        `height`, falling to 0 at the crop's other edges."""
        across = _fade(self.width, self.left > 0, self.left + self.width < width)
        down = _fade(self.height, self.top > 0, self.top + self.height < height)
        return (down[:, None] * across)[..., None]


def _fade(length: int, at_start: bool, at_end: bool) -> np.ndarray:
    ramp = ((np.arange(length) + 0.5) / max(FADE * length, 1)).clip(0, 1).astype(np.float32)
    return (ramp if at_start else 1) * (ramp[::-1] if at_end else np.ones(length, np.float32))


def find_crops(
    pose: PoseSequence, frames: Iterable[int], width: int, height: int, least: float
) -> tuple[Crop, Crop]:
    """The crops of the first frame and of `frames`, equally large and of the picture's proportions, each
    around its subject; the whole picture where no stroke is in sight.

    Args:
        width, height: the picture's pixels.
        least: the share of its sides that a crop has at least.
    """
    first, later = _box(pose, [0], width, height), _box(pose, frames, width, height)
    boxes = [box for box in (first, later) if box is not None]
    if later is None:
        return (Crop(0, 0, width, height),) * 2
    share = max(max((high - low) / (width, height)) for low, high in boxes)
    share = min(max(share, least), 1.0)
    size = np.array([max(round(share * width), 1), max(round(share * height), 1)])
    first = later if first is None else first
    crops = []
    for low, high in (first, later):
        corner = np.rint((low + high - size) / 2).clip(0, np.array([width, height]) - size).astype(int)
        crops.append(Crop(*map(int, corner), *map(int, size)))
    return crops[0], crops[1]


def _box(pose: PoseSequence, frames: Iterable[int], width: int, height: int) -> np.ndarray | None:
    """[2, 2], the lowest and highest x and y of the strokes with their margin, within the picture."""
    points = np.concatenate(
        [np.zeros((0, 3), np.float32), *(pose.frame_points(frame)[0] for frame in frames)]
    )
    points = points[:, :2] * (width / pose.width, height / pose.height)
    seen = points[((points >= 0) & (points <= (width, height))).all(1)]
    if not len(seen):
        return None
    low, high = seen.min(0), seen.max(0)
    margin = MARGIN * (high - low).max()
    return np.stack([low - margin, high + margin]).clip(0, (width, height))


def crop_poses(
    pose: PoseSequence, frames: Iterable[int], crops: tuple[Crop, Crop], width: int, height: int
) -> PoseSequence:
    """The poses of frame 0 and of `frames` as the crops see them, of a picture of `width` x `height`."""
    pose = pose.scaled(width, height)
    shown = [(0, crops[0]), *((frame, crops[1]) for frame in frames)]
    moved = [
        [
            Polyline(line.limb, line.points - np.float32([crop.left, crop.top, 0]))
            for line in pose.frame(frame)
        ]
        for frame, crop in shown
    ]
    return PoseSequence.from_frames(crops[0].width, crops[0].height, pose.parts, pose.limbs, moved)
