"""A tiny decoder for previews, in the layout of TAEHV's `taew2_2` (https://github.com/madebyollin/taehv)."""

from __future__ import annotations

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional as F

WIDTHS = (256, 128, 64, 64)
PATCH = 2
MEMORY = 9
"""Latent frames before one that have a say in how it looks, one for each memory block."""


class TinyDecoder(ModelMixin, ConfigMixin):
    """Pictures of Wan 2.2's latents within milliseconds, at half the clip's size, one for each latent frame.

    Its names are those of the files. What they grow in time, and in size at last, is left out: a preview
    shows the last pixel frame of each latent frame.

    Args:
        latent_channels: of the VAE whose latents it was trained on.
    """

    @register_to_config
    def __init__(self, latent_channels: int = 48):
        super().__init__()
        layers: list[nn.Module] = [SoftClamp(), conv(latent_channels, WIDTHS[0]), nn.ReLU()]
        for stage, (width, following) in enumerate(zip(WIDTHS, WIDTHS[1:])):
            layers += [MemoryBlock(width) for _ in range(3)]
            layers += [nn.Upsample(scale_factor=1 if stage == 2 else 2), LastInTime(width)]
            layers += [conv(width, following, bias=False)]
        self.decoder = nn.Sequential(*layers, nn.ReLU(), conv(WIDTHS[-1], 3 * PATCH**2))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """`[F, 3, 8 h, 8 w]` in [0, 1] from normalised latents `[C, F, h, w]`, the first of them without
        memory."""
        x = latents.movedim(1, 0).to(self.decoder[1].weight.dtype)
        return F.pixel_shuffle(self.decoder(x), PATCH).clamp(0, 1)

    @torch.no_grad()
    def preview(self, latents: torch.Tensor, frame: int) -> np.ndarray:
        """uint8 `[8 h, 8 w, 3]`: a frame of latents `[C, F, h, w]`."""
        picture = self(latents[:, max(frame - MEMORY, 0) : frame + 1])[-1]
        return (picture.movedim(0, -1).float() * 255).round().byte().cpu().numpy()


class MemoryBlock(nn.Module):
    """A residual block that sees the frame before; `[F, C, h, w]`, with nothing before the first."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Sequential(
            conv(2 * width, width), nn.ReLU(), conv(width, width), nn.ReLU(), conv(width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))[:-1]
        return F.relu(self.conv(torch.cat([x, before], dim=1)) + x)


class LastInTime(nn.Module):
    """Where the file's decoder makes several frames of one, the last of them."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *inputs) -> None:
        name = f"{prefix}conv.weight"
        if name in state_dict:
            state_dict[name] = state_dict[name][-self.conv.out_channels :]
        super()._load_from_state_dict(state_dict, prefix, *inputs)


class SoftClamp(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x / 3) * 3


def conv(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
