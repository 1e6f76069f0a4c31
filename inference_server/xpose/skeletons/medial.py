"""`medial`: skeletons from masks alone, without weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...poseanything.conditioning.limbs.medial import TIP_REACH, loose_ends, medial_curves
from ...poseanything.conditioning.masks import size_of
from ..stages import Curve, Skeletoniser
from .matching import centres_of


@dataclass
class MedialSkeletoniser(Skeletoniser):
    """The medial axis of each mask, pruned by scale.

    least_branch: how far a branch must stick out of the shape around it, as a share of the subject's size
        (the diagonal of its box). least_between: the same of a branch that the frames before and after have.
        smoothing: of the mask's outline and of the curves, the same share.
    """

    least_branch: float = 0.06
    least_between: float = 0.045
    smoothing: float = 0.012

    def trace(self, frames: np.ndarray, masks: np.ndarray) -> list[list[Curve]]:
        return [medial_curves(mask, self.least_branch, self.smoothing) for mask in masks]

    def revise(self, curves: list[list[Curve]], masks: np.ndarray) -> list[list[Curve]]:
        """A limb that a frame alone hardly shows does not go for that frame (as edges go on at a lower
        threshold than they begin at; Canny, 1986)."""
        revised, centres = list(curves), centres_of(masks)
        tips = [loose_ends(own) - centre for own, centre in zip(curves, centres)]
        for frame in range(1, len(curves) - 1):
            near = TIP_REACH * size_of(masks[frame])
            missing = _missing(tips[frame - 1], tips[frame], tips[frame + 1], near)
            if len(missing):
                expected = missing + centres[frame]
                revised[frame] = medial_curves(
                    masks[frame], self.least_branch, self.smoothing, expected, self.least_between
                )
        return revised


def _missing(before: np.ndarray, own: np.ndarray, after: np.ndarray, near: float) -> np.ndarray:
    """[N, 2]: where the tips of the frames before and after have one between them that a frame has not."""
    pairs = np.argwhere(np.linalg.norm(before[:, None] - after[None], axis=2) < 2 * near)
    middles = (before[pairs[:, 0]] + after[pairs[:, 1]]) / 2
    taken = np.linalg.norm(middles[:, None] - own[None], axis=2) < near
    return middles[~taken.any(1)]
