"""What is counted, checked and drawn of the segments that were found in a clip."""

from __future__ import annotations

import cv2
import numpy as np

from shared.pose import PoseSequence

from ..poseanything.conditioning.masks import from_nearest
from .stages import Dropped

LEAST_SKELETONS = 0.8
"""Share of a clip's frames that must have a skeleton (paper section 3, stage 3)."""
PART_MAP_SCALE = 8
"""Pixels of a clip to one of its part maps."""


def check_skeletons(pose: PoseSequence) -> None:
    """Raise `Dropped` where too few frames have a skeleton (paper section 3)."""
    share = float((segment_counts(pose) > 0).mean())
    if share < LEAST_SKELETONS:
        raise Dropped(
            "Only {share:.0%} of the frames have a skeleton; {least:.0%} are needed.",
            share=share,
            least=LEAST_SKELETONS,
        )


def segment_counts(pose: PoseSequence) -> np.ndarray:
    """int [F]: the segments of each frame."""
    return np.array(
        [len(set(pose.owners[low:high].tolist())) for low, high in zip(pose.offsets, pose.offsets[1:])], int
    )


def limb_map(pose: PoseSequence, frame: int, mask: np.ndarray) -> np.ndarray:
    """uint8 [h, w]: limb index + 1 of the nearest segment for each pixel of a mask, bool [h, w] of any size;
    0 beside it. An estimate: the truth is known to nobody."""
    height, width = mask.shape
    drawn = np.zeros((height, width), np.uint8)
    scale = np.array([width / pose.width, height / pose.height])
    points, lengths = pose.frame_points(frame)
    ends, low = np.cumsum(lengths), int(pose.offsets[frame])
    for number, (end, length) in enumerate(zip(ends, lengths)):
        line = np.round((points[end - length : end, :2] * scale - 0.5) * 16).astype(np.int32)
        cv2.polylines(drawn, [line], False, int(pose.owners[low + number]) + 1, 1, cv2.LINE_8, 4)
    if not drawn.any():
        return drawn
    return from_nearest(drawn, drawn > 0) * mask
