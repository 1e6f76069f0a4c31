"""How the pixels of a clip become latent frames and tokens. The VAE and the patch embedding own the
figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.sentences import SentenceError


class InputError(SentenceError, ValueError):
    """What was asked for can't be made. Its text is one sentence that says what is wrong and what to do."""


@dataclass(frozen=True)
class LatentGrid:
    """The grid of a model's latents and tokens; by default the released model's.

    spatial_factor: pixels along a side of the square that becomes one latent pixel (the VAE's
        `scale_factor_spatial`).
    frames_per_latent: pixel frames to each latent frame after the first (the VAE's `scale_factor_temporal`).
    patch_size: latent pixels along a side of the square that becomes one token (the transformer's).

    Example:
        >>> LatentGrid().tokens(480, 832)
        (15, 26)
    """

    spatial_factor: int = 16
    frames_per_latent: int = 4
    patch_size: int = 2

    @classmethod
    def of(cls, vae_config: Mapping, transformer_config: Mapping) -> LatentGrid:
        """The grid that the configurations of a VAE and a transformer make together."""
        return cls(
            vae_config["scale_factor_spatial"],
            vae_config["scale_factor_temporal"],
            transformer_config["patch_size"][1],
        )

    @property
    def stride(self) -> int:
        """Pixels along a side of a token."""
        return self.spatial_factor * self.patch_size

    def latent_frames(self, num_frames: int) -> int:
        """Latent frames of a clip of `num_frames`: one for the first frame, one for each full group after
        it."""
        return 1 + (num_frames - 1) // self.frames_per_latent

    def num_frames(self, latent_frames: int) -> int:
        """Pixel frames of so many latent frames."""
        return 1 + (latent_frames - 1) * self.frames_per_latent

    def tokens(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tokens in a frame of that many pixels."""
        return height // self.stride, width // self.stride

    def check_size(self, width: int, height: int, num_frames: int) -> None:
        """Raise `InputError`, naming the nearest sizes, for a clip that doesn't fill the grid."""
        stride, group = self.stride, self.frames_per_latent
        if width % stride or height % stride or min(width, height) < stride:
            fitting = " x ".join(str(max(round(side / stride), 1) * stride) for side in (width, height))
            raise InputError(
                "The clip is {width} x {height} pixels and the model makes multiples of {stride};"
                " choose {near}.",
                width=width,
                height=height,
                stride=stride,
                near=fitting,
            )
        surplus = (num_frames - 1) % group
        if surplus or num_frames < 2:
            below = num_frames - surplus
            nearest = sorted({max(n, 1 + group) for n in (below, below + group)})
            makes = ", ".join(str(1 + n * group) for n in (1, 2, 3))
            raise InputError(
                "The clip has {num_frames} frames and the model makes {makes} and so on; choose {near}.",
                num_frames=num_frames,
                makes=makes,
                near=" or ".join(map(str, nearest)),
            )

    def fit_size(self, width: int, height: int, longer_side: int = 832) -> tuple[int, int]:
        """(width, height) by the release's rule: the longer side is scaled to `longer_side`, both are cut
        down to multiples of the stride."""
        longest, stride = max(width, height), self.stride
        fitted = (max(int(side * longer_side / longest) // stride, 1) * stride for side in (width, height))
        return next(fitted), next(fitted)
