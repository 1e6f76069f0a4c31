"""A linear video VAE: the principal components of small blocks of pixels, for models trained within
minutes."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from ..compat.diffusers import patchify


class AutoencoderLinear(ModelMixin, ConfigMixin):
    r"""Codes a video block by block: `scale_factor_temporal` frames of `patch_size` x `patch_size` pixels
    become `z_dim` numbers, by a linear map each way.

    It stands in for `AutoencoderKLWan` wherever that is asked for latents frame by frame (`encode_frames`,
    `decode_frames`): the first frame is a latent frame of its own, repeated to fill its block. Without more
    components than `3 * scale_factor_temporal * patch_size**2` it loses nothing but by rounding; with fewer
    it keeps what `set_basis` was given. It is saved and loaded as any of diffusers' models,
    `save_pretrained("vae")`.

    Args:
        z_dim: channels of a latent.
        patch_size: pixels along a side of the square that becomes one latent pixel.
        scale_factor_temporal: pixel frames to each latent frame after the first.
        latents_mean, latents_std: `[z_dim]` each, by which latents are normalised; 0 and 1 by default.

    Example:
        >>> vae = AutoencoderLinear(z_dim=192, patch_size=8)
        >>> patches = vae.patches(video)  # [B, 3, 1 + 4 n, H, W] in [-1, 1] -> [B, 768, 1 + n, H / 8, W / 8]
        >>> samples = patches.movedim(1, -1).flatten(0, -2)
        >>> _, _, components = torch.pca_lowrank(samples, q=192)
        >>> vae.set_basis(components.T, samples.mean(0))
        >>> vae.save_pretrained("weights/small/vae")
    """

    _no_split_modules: list[str] = []
    use_tiling = False

    @register_to_config
    def __init__(
        self,
        z_dim: int = 192,
        patch_size: int = 8,
        scale_factor_temporal: int = 4,
        scale_factor_spatial: int | None = None,
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
    ):
        super().__init__()
        if scale_factor_spatial not in (None, patch_size):
            raise ValueError(
                "A latent pixel of the linear VAE is a patch: scale_factor_spatial is "
                f"{scale_factor_spatial} where patch_size is {patch_size}; leave it out."
            )
        # Read from the configuration by whoever normalises latents and counts tokens, as of diffusers' own.
        self.register_to_config(
            scale_factor_spatial=patch_size,
            latents_mean=[0.0] * z_dim if latents_mean is None else list(latents_mean),
            latents_std=[1.0] * z_dim if latents_std is None else list(latents_std),
        )
        pixels = 3 * scale_factor_temporal * patch_size**2
        self.encoder = LinearEncoder(pixels, z_dim, scale_factor_temporal)
        self.decoder = LinearDecoder(z_dim, pixels, scale_factor_temporal)
        self.quant_conv, self.post_quant_conv = Moments(), nn.Identity()

    @property
    def spatial_compression_ratio(self) -> int:
        return self.config.patch_size

    @property
    def tile_sample_min_height(self) -> int:
        """A tile is as large as any picture: blocks of pixels know nothing of each other, so tiling saves
        little."""
        return 1 << 20

    tile_sample_min_width = tile_sample_stride_height = tile_sample_stride_width = tile_sample_min_height

    def enable_tiling(self) -> None:
        self.use_tiling = True

    def disable_tiling(self) -> None:
        self.use_tiling = False

    def patches(self, video: torch.Tensor) -> torch.Tensor:
        """The blocks of a video as the encoder sees them.

        Args:
            video: `[B, 3, F, H, W]` in [-1, 1], F = 1 + `scale_factor_temporal` n.

        Returns:
            `[B, 3 * scale_factor_temporal * patch_size**2, 1 + n, H / patch_size, W / patch_size]`.
        """
        group = self.config.scale_factor_temporal
        video = torch.cat([video[:, :, :1].expand(-1, -1, group - 1, -1, -1), video], dim=2)
        return fold_time(patchify(video, self.config.patch_size), group)

    @torch.no_grad()
    def set_basis(self, basis: torch.Tensor, mean: torch.Tensor) -> None:
        """Code blocks by orthonormal `basis`, `[z_dim, D]` in the order of `patches`, about their `mean`
        `[D]`."""
        encoder, decoder = self.encoder.mid_block, self.decoder.mid_block
        encoder.weight.copy_(basis[..., None, None, None])
        encoder.bias.copy_(-basis @ mean)
        decoder.weight.copy_(basis.T[..., None, None, None])
        decoder.bias.copy_(mean)


class LinearEncoder(nn.Module):
    """Blocks of pixels to latents. `mid_block` and `down_blocks` are where a long computation can be left."""

    def __init__(self, pixels: int, z_dim: int, frames: int):
        super().__init__()
        self.frames = frames
        self.mid_block = nn.Conv3d(pixels, z_dim, 1)
        self.down_blocks = nn.ModuleList()

    def forward(self, x: torch.Tensor, feat_cache: list | None = None, feat_idx: list | None = None):
        """`[B, z_dim, 1, h, w]` from one group of patchified frames `[B, C, 1 or frames, h, w]`."""
        return self.mid_block(fold_time(x.expand(-1, -1, self.frames, -1, -1), self.frames))


class LinearDecoder(nn.Module):
    """Latents to blocks of pixels."""

    def __init__(self, z_dim: int, pixels: int, frames: int):
        super().__init__()
        self.frames = frames
        self.mid_block = nn.Conv3d(z_dim, pixels, 1)
        self.up_blocks = nn.ModuleList()

    def forward(
        self,
        z: torch.Tensor,
        feat_cache: list | None = None,
        feat_idx: list | None = None,
        first_chunk: bool = False,
    ):
        """Patchified frames `[B, C, frames, h, w]` from `[B, z_dim, 1, h, w]`; one alone of the first latent
        frame."""
        x = self.mid_block(z).squeeze(2).unflatten(1, (self.frames, -1)).transpose(1, 2)
        return x.mean(2, keepdim=True) if first_chunk else x


class Moments(nn.Module):
    """A mean and no variance, as the other VAEs' encoders end."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cat([z, torch.zeros_like(z)], dim=1)


def fold_time(x: torch.Tensor, group: int) -> torch.Tensor:
    """`[B, group * C, F / group, h, w]` from `[B, C, F, h, w]`."""
    return x.unflatten(2, (-1, group)).permute(0, 3, 1, 2, 4, 5).flatten(1, 2)
