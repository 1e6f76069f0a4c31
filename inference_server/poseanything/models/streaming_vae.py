"""Between pixels and latents, a latent frame at a time, with Wan's causal VAE.

The VAE sees 1 pixel frame in its first latent frame and 4 in each later one, and remembers in a cache of
features what it has seen so far. Here that cache is the call's own: frames can be shown as soon as they are
decoded, memory doesn't grow with the clip, and one thread can decode while another encodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from ..compat.diffusers import WanCausalConv3d, patchify, unpatchify


def to_video(images: np.ndarray) -> torch.Tensor:
    """float32 `[..., 3, F, H, W]` in [-1, 1] from uint8 images `[..., F, H, W, 3]`, or grey ones `[F, H,
    W]`."""
    video = torch.from_numpy(np.array(images))
    video = video.unsqueeze(-1).expand(*video.shape, 3) if video.shape[-1] != 3 else video
    return video.movedim(-1, -4).float() / 127.5 - 1


class Images:
    """The uint8 images `[..., F, H, W, 3]` of a video `[..., 3, F, H, W]` in [-1, 1], on their way to the
    host: a card copies them behind what it computes, into pinned memory, while the caller goes on."""

    def __init__(self, video: torch.Tensor):
        images = ((video.float() + 1) * 127.5).round().clamp(0, 255).byte().movedim(-4, -1).contiguous()
        self._there, self._copied = images, None
        if images.is_cuda:
            self._there = torch.empty_like(images, device="cpu", pin_memory=True)
            self._there.copy_(images, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    @property
    def on_their_way(self) -> bool:
        """Whether there may be something to wait for."""
        return self._copied is not None

    def array(self) -> np.ndarray:
        """Waits for them."""
        if self._copied is None:
            return self._there.numpy()
        self._copied.synchronize()
        return self._there.numpy().copy()  # the next images are copied into the same pinned memory


def encode_frames(vae: AutoencoderKLWan, video: torch.Tensor) -> Iterator[torch.Tensor]:
    """Encode a video, one latent frame after another, as `vae.encode` does untiled.

    Args:
        video: `[B, 3, 1 + 4 n, H, W]` in [-1, 1], 4 being the VAE's own number.

    Yields:
        float32 `[B, C, 1, h, w]`, the mode, normalised as the transformer takes it.
    """
    return _encode(vae, video.split(groups(vae, video.shape[2]), dim=2))


def encode_images(
    vae: AutoencoderKLWan, images: np.ndarray, device: torch.device | str
) -> Iterator[torch.Tensor]:
    """As `encode_frames`, of uint8 images `[1 + 4 n, H, W]` or `[1 + 4 n, H, W, 3]`, which are brought to the
    device as they are needed: memory doesn't grow with the clip."""
    ends = np.cumsum(groups(vae, len(images)))[:-1]
    return _encode(vae, (to_video(part)[None].to(device) for part in np.split(images, ends)))


def groups(vae: AutoencoderKLWan, num_frames: int) -> list[int]:
    """How many pixel frames each latent frame holds."""
    group = vae.config.scale_factor_temporal
    return [1, *[group] * ((num_frames - 1) // group)]


def _encode(vae: AutoencoderKLWan, chunks: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    features = feature_cache(vae.encoder)
    for chunk in chunks:
        mean, std = statistics(vae, chunk.device)
        chunk = patchify(chunk.to(vae.dtype), vae.config.patch_size or 1)
        moments = vae.quant_conv(vae.encoder(chunk, feat_cache=features, feat_idx=[0]))
        yield (moments.chunk(2, dim=1)[0].float() - mean) / std


def decode_frames(vae: AutoencoderKLWan, latents: torch.Tensor) -> Iterator[torch.Tensor]:
    """Decode latents, one latent frame after another, as `vae.decode` does; in tiles where the VAE's are
    switched on.

    Args:
        latents: normalised, `[B, C, F, h, w]`.

    Yields:
        `[B, 3, 1, H, W]` and then `[B, 3, 4, H, W]`, in [-1, 1].
    """
    return FrameDecoder(vae).decode(latents)


class FrameDecoder:
    """Decodes the latent frames of one clip as they come: however they are divided, the pictures are the
    same."""

    def __init__(self, vae: AutoencoderKLWan):
        self._vae = vae
        self._tiles: Tiles | None = None
        self._features: list[list[torch.Tensor | None]] = []

    def decode(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """As `decode_frames`, from where the last call ended."""
        vae = self._vae
        mean, std = statistics(vae, latents.device)
        for frame in (latents.float() * std + mean).to(vae.dtype).split(1, dim=2):
            first = self._tiles is None
            if self._tiles is None:
                self._tiles = Tiles(vae, *latents.shape[-2:])
                self._features = [feature_cache(vae.decoder) for _ in self._tiles.places]
            decoded = [
                vae.decoder(vae.post_quant_conv(tile), feat_cache=cache, feat_idx=[0], first_chunk=first)
                for tile, cache in zip(self._tiles.cut(frame), self._features)
            ]
            yield unpatchify(self._tiles.join(decoded), vae.config.patch_size or 1).clamp(-1, 1)


def statistics(vae: AutoencoderKLWan, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the latents, `[C, 1, 1, 1]`."""
    mean, std = torch.tensor([vae.config.latents_mean, vae.config.latents_std], device=device)
    return mean.view(-1, 1, 1, 1), std.view(-1, 1, 1, 1)


def feature_cache(half: torch.nn.Module) -> list[torch.Tensor | None]:
    """An empty cache for the causal convolutions of the VAE's encoder or decoder."""
    return [None] * sum(isinstance(module, WanCausalConv3d) for module in half.modules())


class Tiles:
    """How the VAE's tiling divides a latent frame; a single tile where it is off or the frame is small."""

    def __init__(self, vae: AutoencoderKLWan, height: int, width: int):
        self.vae = vae
        ratio = vae.spatial_compression_ratio
        self.size = vae.tile_sample_min_height // ratio, vae.tile_sample_min_width // ratio
        stride = vae.tile_sample_stride_height // ratio, vae.tile_sample_stride_width // ratio
        if not vae.use_tiling or (height <= self.size[0] and width <= self.size[1]):
            self.size = stride = height, width
        self.rows, self.columns = range(0, height, stride[0]), range(0, width, stride[1])
        self.places = [(row, column) for row in self.rows for column in self.columns]
        scale = ratio // (vae.config.patch_size or 1)  # from latent pixels to what the decoder gives
        self.height, self.width = height * scale, width * scale
        self.stride = stride[0] * scale, stride[1] * scale
        self.overlap = self.size[0] * scale - self.stride[0], self.size[1] * scale - self.stride[1]

    def cut(self, frame: torch.Tensor) -> list[torch.Tensor]:
        return [
            frame[..., row : row + self.size[0], column : column + self.size[1]]
            for row, column in self.places
        ]

    def join(self, decoded: list[torch.Tensor]) -> torch.Tensor:
        """The frame of its decoded tiles, blended as the VAE blends them."""
        if len(decoded) == 1:
            return decoded[0]
        grid = [decoded[i : i + len(self.columns)] for i in range(0, len(decoded), len(self.columns))]
        joined = []
        for i, row in enumerate(grid):
            for j, tile in enumerate(row):
                if i:
                    tile = self.vae.blend_v(grid[i - 1][j], tile, self.overlap[0])
                if j:
                    tile = self.vae.blend_h(row[j - 1], tile, self.overlap[1])
            joined.append(torch.cat([tile[..., : self.stride[0], : self.stride[1]] for tile in row], dim=-1))
        return torch.cat(joined, dim=-2)[..., : self.height, : self.width]
