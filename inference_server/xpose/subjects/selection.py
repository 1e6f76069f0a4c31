"""Which mask is the subject's (paper section 3, stage 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..stages import Dropped

AREA_SHARES = (0.2, 0.8)
"""The paper's: how much of the picture the subject covers."""
LEAST_BOX = 1 / 64
"""The release's: the least share of the picture that the subject's box has in the first frame."""
AREA_RULES = ("release", "paper", "any")


def largest_mask(masks: Sequence[np.ndarray]) -> int | None:
    """Equation 1: the index of the mask with the largest area, None where all are empty."""
    areas = [np.count_nonzero(mask) for mask in masks]
    return int(np.argmax(areas)) if any(areas) else None


def next_mask(masks: Sequence[np.ndarray], labels: Sequence[str], label: str, last: np.ndarray) -> int | None:
    """Equation 2: of the masks with the target's label, the index of the one with the highest IoU with the
    last mask that was selected. None where no mask has the label and touches the last: the frame is
    skipped."""
    overlaps = [iou(mask, last) if name == label else 0.0 for mask, name in zip(masks, labels)]
    return int(np.argmax(overlaps)) if any(overlaps) else None


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks, bool [H, W]; 0 where both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 0.0


def area_share(masks: np.ndarray) -> float:
    """The subject's share of the picture, the median over the frames of `masks` [F, H, W] that have one."""
    shares = masks.mean((1, 2))
    return float(np.median(shares[shares > 0])) if shares.any() else 0.0


def check_area(masks: np.ndarray, rule: str = "release") -> None:
    """Raise `Dropped` for a subject that is too small or too large.

    rule: "paper" keeps shares of the picture within (0.2, 0.8); "release" keeps what has a box of at least
    1/64 of the picture in its first frame, as the official extractor asks for; "any" keeps all.
    """
    if not masks.any():
        raise Dropped("No subject was found.")
    if rule == "paper":
        share, (least, most) = area_share(masks), AREA_SHARES
        if not least < share < most:
            raise Dropped(
                "The subject is too small: {share:.1%} of the picture."
                if share <= least
                else "The subject is too large: {share:.1%} of the picture.",
                share=share,
            )
    elif rule == "release":
        mask = masks[masks.any((1, 2)).argmax()]
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        share = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1) / mask.size
        if share < LEAST_BOX:
            raise Dropped("The subject is too small: its box has {share:.1%} of the picture.", share=share)
