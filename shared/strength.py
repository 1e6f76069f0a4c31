"""How strong pose guidance should be for the share of frames that have a pose (paper section G)."""

from __future__ import annotations

import math

DENSE_RATIO, DENSE_SCALE = 1.0, 1.2
SPARSE_RATIO, SPARSE_SCALE = 0.1, 3.0


def suggest_guidance_scale(posed_ratio: float) -> float:
    """A scale for `ClassifierFreePoseGuidance`: low for dense poses, higher for sparse ones, as section G
    advises.

    Scale 1 is none here and in the release; Eq. 17 counts the same strength as the scale less 1. Table 6
    doesn't say which of the two its scales are and is read as the former, the weaker. It tries 1.2 to 5.0
    with a pose in every frame and in one of ten: the weakest is best in every figure but one, the FVD of
    sparse poses, which is best at 3.0 (98.91 against 99.01). By the figures the least guidance would always
    do; what more of it buys sparse poses is that they are met more closely, which the paper shows in pictures
    only. In between, the scale goes with the logarithm of the ratio.

    Args:
        posed_ratio: frames with a pose / all frames, above 0 and at most 1.

    Returns:
        1.2 to 3.0.

    Raises:
        ValueError: the ratio is out of range.
    """
    if not 0 < posed_ratio <= 1:
        raise ValueError(f"The share of posed frames is {posed_ratio:g}; it must be above 0 and at most 1.")
    sparsity = min(1.0, math.log(DENSE_RATIO / posed_ratio) / math.log(DENSE_RATIO / SPARSE_RATIO))
    return DENSE_SCALE + sparsity * (SPARSE_SCALE - DENSE_SCALE)
