"""Rough pictures straight from latents: the best linear guess of a latent pixel's colour."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch.nn import functional

from ..models.streaming_vae import encode_frames, to_video

RIDGE = 1e-4


class LatentPreview:
    """A 48 -> 3 map from latents to colours, fitted by least squares to what a VAE makes of known pictures.

    Args:
        vae: the VAE whose latents are to be seen.
        images: uint8 `[N, H, W, 3]`, pictures to learn from besides a chart of colours; sides multiples of
            16.
    """

    @torch.no_grad()
    def __init__(self, vae: AutoencoderKLWan, images: np.ndarray, device: torch.device | str):
        latents, colours = [], []
        for image in [*images, colour_chart(*images.shape[1:3])]:
            # Two latent frames: the first is unlike the others.
            still = to_video(np.stack([image] * 5))[None].to(device)
            for frame in encode_frames(vae, still):
                size = frame.shape[-2:]
                latents.append(frame.flatten(2).squeeze(0).T)
                colours.append(functional.adaptive_avg_pool2d(still[:, :, 0], size).flatten(2).squeeze(0).T)
        latents = functional.pad(torch.cat(latents), (0, 1), value=1.0)
        colours = torch.cat(colours)
        gram = latents.T @ latents
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
        fitted = torch.linalg.solve(gram, latents.T @ colours)
        self.weight, self.bias = fitted[:-1], fitted[-1]

    def __call__(self, latents: torch.Tensor) -> np.ndarray:
        """uint8 `[..., h, w, 3]` from normalised latents `[C, ..., h, w]`."""
        colours = latents.movedim(0, -1).float() @ self.weight + self.bias
        return ((colours + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()


def colour_chart(height: int, width: int, cell: int = 32) -> np.ndarray:
    """uint8 [height, width, 3]: fields of random colours, the same ones every time."""
    rows, columns = -(-height // cell), -(-width // cell)
    colours = np.random.default_rng(0).integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    return colours.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width]
