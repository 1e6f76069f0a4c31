"""Masks at the resolution of the transformer's tokens (1/32 of the clip's)."""

from __future__ import annotations

import numpy as np


def token_masks(masks: np.ndarray, height_tokens: int, width_tokens: int) -> np.ndarray:
    """bool [..., h, w]: masks [..., H, W] sampled by nearest neighbour, at the top left pixel of each token
    as in the release."""
    height, width = masks.shape[-2:]
    rows = np.arange(height_tokens) * height // height_tokens
    columns = np.arange(width_tokens) * width // width_tokens
    return masks[..., rows[:, None], columns]
