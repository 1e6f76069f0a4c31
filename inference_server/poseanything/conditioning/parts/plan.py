"""What pose images alone say about parts, before they are matched across frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .dilation import dilate, dilation_alpha
from .segments import MAX_SEGMENTS, MIN_SEGMENT_PIXELS, split_segments, squash
from .tokens import token_masks

RELEASE_SIDE = 832
"""Pixels of the longer side in the release, by which the shortest segment's length is scaled."""


@dataclass(frozen=True, eq=False)
class PartPlan:
    """Parts of the first frame and, for every later pixel frame that has a pose, the parts to choose their
    matches from.

    first: bool [P, h, w], masks of the first frame's parts in tokens. P is 0 when frame 0 has no pose.
    candidates: pixel frame (1 or more) -> bool [S, h, w]; the parts of different frames are in no common
        order.
    """

    first: np.ndarray
    candidates: Mapping[int, np.ndarray]

    @property
    def rows(self) -> np.ndarray:
        """int [R]: the first frame's tokens, row by row, that lie in any part; matching needs attention
        weights of these only."""
        return np.flatnonzero(self.first.any(0))


def plan_parts(
    pose_images: Mapping[int, np.ndarray],
    subject_mask: np.ndarray | None,
    width: int,
    height: int,
    stride: int = 32,
    max_parts: int = MAX_SEGMENTS,
    check: Callable[[], None] | None = None,
) -> PartPlan:
    """Part masks of every posed frame, as the release makes them (paper Eq. 6 and 7).

    Args:
        pose_images: pixel frame -> uint8 [H, W], white lines on black, of any size; squashed to the clip's.
        subject_mask: bool [height, width], the subject in the first frame; its parts end where it does. None:
            they don't.
        width, height: the clip's size in pixels.
        stride: pixels to a token.
        max_parts: how many parts a frame has at most, as the checkpoint was trained.
        check: called before each frame; what it raises ends it all.
    """
    tokens = height // stride, width // stride
    if 0 not in pose_images:
        return PartPlan(np.zeros((0, *tokens), bool), {})

    shortest = MIN_SEGMENT_PIXELS * max(width, height) / RELEASE_SIDE
    alpha = dilation_alpha(squash(pose_images[0], width, height), subject_mask)
    masks = {}
    for frame, image in pose_images.items():
        if check is not None:
            check()
        dilated = dilate(split_segments(squash(image, width, height), max_parts, shortest), alpha)
        if frame == 0 and subject_mask is not None:
            dilated &= subject_mask
        masks[frame] = token_masks(dilated, *tokens)
    return PartPlan(masks.pop(0), masks)
