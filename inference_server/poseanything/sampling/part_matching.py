"""Matching of parts by how a model attends (paper, Eq. 8, section C), for who samples from it and who trains
it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..conditioning.parts import PartPlan, match_parts
from ..models.transformer import FirstFrameAttention, PartTokens

MATCHING_BLOCK = 27
MATCHING_TIMESTEP = 975
"""At later steps, as in deeper blocks, attention spreads evenly and tells parts apart no more (paper, section
C)."""


class PartMatcher:
    """Matches planned parts by what a model's block recorded in one of its passes.

    Args:
        config: the model's.
        frames_per_latent: pixel frames to each latent frame after the first.
        mode: see `match_parts`; for "release" what the block would attend to on its own output is recorded.
    """

    def __init__(self, config, frames_per_latent: int, mode: str = "assigned"):
        self.frames_per_latent, self.mode = frames_per_latent, mode
        self._beside_pose = config.pose_injection == "width"
        self._block = min(MATCHING_BLOCK, config.num_layers - 1)

    def recorder(self, plans: Sequence[PartPlan]) -> FirstFrameAttention:
        """What is to record the attention of a pass over samples, of whose parts these are the plans."""
        rows, columns = _rows(plans), plans[0].first.shape[-1]
        if self._beside_pose:
            rows = rows // columns * 2 * columns + rows % columns
        on = "own_output" if self.mode == "release" else "input"
        return FirstFrameAttention(self._block, torch.from_numpy(rows), on=on)

    def match(self, plans: Sequence[PartPlan], weights: torch.Tensor) -> PartTokens:
        """The parts by the weights `[B, R, L]` of their recorder; a single plan is that of all samples."""
        values, columns = weights.cpu().numpy(), plans[0].first.shape[-1]
        if self._beside_pose:
            halves = values.reshape(*values.shape[:2], -1, 2, columns)
            values = halves[:, :, :, 0].reshape(*values.shape[:2], -1)
        rows = _rows(plans)
        plans = [*plans] * (len(values) // len(plans))
        matched = [
            match_parts(plan, sample, rows, self.mode, self.frames_per_latent)
            for plan, sample in zip(plans, values, strict=True)
        ]
        return self.tokens(np.stack([plan.first for plan in plans]), np.stack(matched))

    def tokens(self, first: np.ndarray, frames: np.ndarray, batch_size: int = 1) -> PartTokens:
        """Masks as `PartTokens.from_masks` takes them, where the model has the video's tokens."""
        if self._beside_pose:
            first, frames = (np.concatenate([part, np.zeros_like(part)], axis=-1) for part in (first, frames))
        return PartTokens.from_masks(first, frames, batch_size)


def _rows(plans: Sequence[PartPlan]) -> np.ndarray:
    """int [R], the first frame's tokens that lie in any part of any plan."""
    return np.flatnonzero(np.any([plan.first.any(0) for plan in plans], 0))
