"""Peak signal to noise of a clip's pixels."""

from __future__ import annotations

import torch

PEAK = 255.0


def psnr(images: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """dB [B] over frames 1 and on of uint8 or float `[B, F, H, W, 3]` in 0..255, over the pixels of `mask`
    `[B, F, H, W]`.

    Frame 0 is given, so it doesn't count. NaN for a clip whose mask is empty.
    """
    error = (images[:, 1:].float() - truth[:, 1:].float()).square().mean(-1)
    if mask is None:
        mean = error.flatten(1).mean(1)
    else:
        inside = (mask[:, 1:] > 0).float()
        mean = (error * inside).flatten(1).sum(1) / inside.flatten(1).sum(1)
    return 10 * torch.log10(PEAK**2 / mean.clamp(min=1e-6))
