"""What a clip needs: the sizes of the model's parts, and the memory that computing with them takes.

Bytes of what is alive at once were counted in two-byte values (twice that in float32) by running the real
shapes on torch's meta device and adding up every tensor that some name still holds
(tests/model/live_bytes.py). The attention kernels' own scratch is not in it: the fused ones keep next to
none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from ..checkpoints.float8 import FLOAT8
from ..checkpoints.folder import WeightSet
from ..checkpoints.loading import REPEATED_BLOCK, Opened
from ..checkpoints.weights import TEXT_ENCODER, TOKEN_EMBEDDING, TRANSFORMER, VAE
from ..conditioning.latent_grid import LatentGrid

TRANSFORMER_FFN_ROWS = 2.0
"""A token's features that a block holds `ffn_dim` wide: before and after the GELU, where it needs most."""
TRANSFORMER_DIM_ROWS = 5.6
"""And those `dim` wide then: the residual, its norm in float32, RoPE and the modulation of a frame."""
VAE_DECODE_BYTES_PER_PIXEL = 10_850
"""Of one latent frame, 4 pixel frames: 256 to 1024 channels at half size and below, and what the causal
convolutions remember of the frames before. It doesn't grow with the clip, since frames are handed on as they
are decoded."""
VAE_TILE_BYTES = 480 * 2**20
VAE_TILED_BYTES_PER_PIXEL = 6_000
"""In tiles of 256 x 256, one after the other, only the convolutions' memory is that of the whole picture."""
VAE_ENCODE_BYTES_PER_PIXEL = 3_800
TEXT_BYTES = 96 * 2**20
"""Of UMT5-XXL reading 512 tokens."""
FLOAT8_BYTES_PER_VALUE = 1.005  # with its scales, one float32 per row


@dataclass(frozen=True)
class ModelSizes:
    """How large the model's parts are, in parameters; by default those of the released model."""

    transformer: int = TRANSFORMER.parameters
    blocks: int = 30
    block: int = 201_430_016
    """Of the transformer's blocks, one."""
    dim: int = 3072
    ffn_dim: int = 14336
    latent_pixels: int = 16
    """Pixels along a side of the square that becomes one latent pixel."""
    patch_pixels: int = 2
    """Latent pixels along a side of the square that becomes one token."""
    frames_per_latent: int = 4
    """Pixel frames to each latent frame after the first."""
    sample_frames: int = 81
    """Pixel frames that the checkpoint makes at once where nothing else is asked for."""
    vae: int = VAE.parameters
    text_layers: int = TEXT_ENCODER.parameters - TOKEN_EMBEDDING
    """Of the text encoder without its token embedding, which stays with the host; 0 where there is none."""
    text_blocks: int = 24
    stored: Literal["plain", "fp8", "gguf"] = "plain"
    """How the transformer's file keeps its weights."""
    stored_bytes_per_value: float = 2.0
    """Of a quantised file's weights."""
    adapter_bytes: int = 0
    """Of the LoRAs, which stay on the card."""

    @property
    def grid(self) -> LatentGrid:
        return LatentGrid(self.latent_pixels, self.frames_per_latent, self.patch_pixels)

    @classmethod
    def of(cls, weights: WeightSet) -> ModelSizes:
        """The sizes of the model in these files; nothing of them is read. Raises `CheckpointError`."""
        from ..checkpoints.text_encoder import open_text_encoder
        from ..checkpoints.transformer import open_transformer
        from ..checkpoints.vae import open_vae

        transformer = open_transformer(weights.transformer)
        vae = open_vae(weights.vae).model
        text_encoder = None if weights.text_encoder is None else open_text_encoder(weights.text_encoder).model
        config = transformer.model.config
        stored, bytes_per_value = _stored(transformer)
        return cls(
            transformer=_count(transformer.model),
            blocks=len(transformer.model.blocks),
            block=_count(transformer.model.blocks[0]),
            dim=config.num_attention_heads * config.attention_head_dim,
            ffn_dim=config.ffn_dim,
            latent_pixels=vae.spatial_compression_ratio,
            frames_per_latent=vae.config.scale_factor_temporal,
            sample_frames=config.sample_frames,
            patch_pixels=config.patch_size[1],
            vae=_count(vae),
            text_layers=0
            if text_encoder is None
            else _count(text_encoder) - text_encoder.shared.weight.numel(),
            text_blocks=1 if text_encoder is None else len(text_encoder.encoder.block),
            stored=stored,
            stored_bytes_per_value=bytes_per_value,
        )


@dataclass(frozen=True)
class Shape:
    """What is made at once: `num_frames` of a clip, `batch_size` times."""

    width: int
    height: int
    num_frames: int
    batch_size: int = 1

    @property
    def pixels(self) -> int:
        """Of one frame, of all samples."""
        return self.width * self.height * self.batch_size


def tokens(sizes: ModelSizes, shape: Shape) -> int:
    """How many the transformer attends over, of one sample."""
    rows, columns = sizes.grid.tokens(shape.height, shape.width)
    return sizes.grid.latent_frames(shape.num_frames) * rows * columns


def denoising_bytes(sizes: ModelSizes, shape: Shape, itemsize: int, expands: bool) -> int:
    """Beside the weights, for a step. `expands`: a quantised layer's weight is expanded while it computes."""
    features = TRANSFORMER_FFN_ROWS * sizes.ffn_dim + TRANSFORMER_DIM_ROWS * sizes.dim
    expanded = 2 * sizes.dim * sizes.ffn_dim if expands else 0  # the feed-forward's is the largest
    count = tokens(sizes, shape) * shape.batch_size
    return round((count * features + expanded) * itemsize)


def decoding_bytes(shape: Shape, itemsize: int, tiling: bool) -> int:
    """Beside the weights, for a latent frame."""
    whole = VAE_DECODE_BYTES_PER_PIXEL * shape.pixels
    tiled = VAE_TILE_BYTES * shape.batch_size + VAE_TILED_BYTES_PER_PIXEL * shape.pixels
    return (min(tiled, whole) if tiling else whole) * itemsize // 2


def encoding_bytes(shape: Shape, itemsize: int) -> int:
    """Beside the weights, for a latent frame."""
    return VAE_ENCODE_BYTES_PER_PIXEL * shape.pixels * itemsize // 2


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _stored(opened: Opened) -> tuple[Literal["plain", "fp8", "gguf"], float]:
    """How a transformer's file keeps the weights of its blocks, and in how many bytes each."""
    if opened.tensors.paths[0].suffix == ".gguf":
        values = sum(parameter.numel() for parameter in opened.model.parameters())
        return "gguf", sum(path.stat().st_size for path in opened.tensors.paths) / values
    layer = next(
        name
        for name, shape in opened.tensors.shapes.items()
        if REPEATED_BLOCK.search(name) and len(shape) == 2
    )
    return ("fp8", FLOAT8_BYTES_PER_VALUE) if opened.tensors[layer].dtype == FLOAT8 else ("plain", 2.0)
