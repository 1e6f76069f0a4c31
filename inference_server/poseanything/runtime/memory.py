"""Fitting the model to the card: what stays on it, what streams through it, in which precision, and why.

A plan is the first rung of a ladder that the card's free memory and the host's can carry. The higher rungs
are faster, and nearer to the model as released; `MemoryPlan.step_down` is for when the card turns out to hold
less than it said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import psutil
import torch
from diffusers.hooks import apply_group_offloading
from torch import nn
from torch.nn import functional

from ..checkpoints.float8 import FLOAT8
from ..checkpoints.folder import WeightSet
from ..checkpoints.loading import REPEATED_BLOCK, Opened, Quantization
from ..conditioning.latent_grid import LatentGrid

GIB = 2**30

# Bytes of what is alive at once, counted in two-byte values (twice that in float32) by running the real
# shapes on torch's meta device and adding up every tensor that some name still holds
# (tests/model/live_bytes.py). The attention kernels' own scratch is not in it: the fused ones keep next to
# none.
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
TEXT_BYTES = 256 * 2**20
"""Of UMT5-XXL reading 512 tokens; streamed, with the two layers that are on the card."""

STREAMED_BLOCKS = 3
"""Blocks on the card while they stream: the one computed, the next one on its way, and the last one being let
go."""
RESERVE_BYTES = 768 * 2**20
"""For cuBLAS' and cuDNN's workspaces, what the allocator can't join, and LoRAs."""
HOST_RESERVE_BYTES = 3 * GIB
"""For the interpreter and its libraries, and the rest of the system."""
FLOAT8_BYTES_PER_VALUE = 1.005  # with its scales, one float32 per row


@dataclass(frozen=True)
class Card:
    """What computes, and the memory it and its host have to give, in bytes."""

    name: str
    device: torch.device
    free_bytes: int
    """Of the card; of the host where there is no card."""
    host_bytes: int
    bfloat16: bool = True
    """Whether it computes in bfloat16; the older ones do in float16 alone."""

    @classmethod
    def of(cls, device: torch.device | str, loaded: MemoryPlan | None = None) -> Card:
        """The device as it is now. What this process's allocator holds of it counts as free, and so does what
        the weights of the plan `loaded` hold of the host: keeping them takes nothing more."""
        device = torch.device(device)
        memory = psutil.virtual_memory()
        host_bytes = min(memory.available + (loaded.held_bytes if loaded else 0), memory.total)
        if device.type != "cuda":
            return cls("the processor", device, host_bytes, host_bytes)
        free_bytes = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
        return cls(torch.cuda.get_device_name(device), device, free_bytes, host_bytes, bfloat16)


@dataclass(frozen=True)
class ModelSizes:
    """How large the model's parts are, in parameters; by default those of the released model."""

    transformer: int = 6_133_576_896
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
    vae: int = 704_688_668
    text_layers: int = 4_630_761_472
    """Of the text encoder without its token embedding, which stays with the host."""
    stored: Literal["plain", "fp8", "gguf"] = "plain"
    """How the transformer's file keeps its weights."""
    stored_bytes_per_value: float = 2.0
    """Of a quantised file's weights."""

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
        text_encoder = open_text_encoder(weights.text_encoder).model
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
            text_layers=_count(text_encoder) - text_encoder.shared.weight.numel(),
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


@dataclass(frozen=True)
class MemoryPlan:
    """How the model is kept while clips of one shape are made.

    Weights are loaded with `load_options`, then placed by `apply`. `transformer` and `text_encoder` stay on
    the card ("resident"), or lie in the host's memory and stream through it ("streamed": the transformer
    block by block, always one ahead of the computation; the text encoder once for each new prompt).
    """

    card: Card
    sizes: ModelSizes
    shape: Shape
    transformer: Literal["resident", "streamed"]
    text_encoder: Literal["resident", "streamed"]
    quantization: Quantization
    """Of the transformer's blocks."""
    text_quantization: Quantization
    vae_tiling: bool
    dtype: torch.dtype = torch.bfloat16

    @property
    def peak_bytes(self) -> int:
        """The most that is on the card at any time."""
        return self._weights_bytes + max(
            self._denoising_bytes, self._decoding_bytes, self._encoding_bytes, self._text_bytes
        )

    @property
    def host_bytes(self) -> int:
        """The most that is kept in the host's memory; the text encoder's file is mapped, not read, when it
        streams."""
        if self.card.device.type == "cpu":
            return self.peak_bytes + HOST_RESERVE_BYTES
        streamed = self._transformer_bytes if self.transformer == "streamed" else 0
        return streamed + HOST_RESERVE_BYTES

    @property
    def held_bytes(self) -> int:
        """What of the host's memory the loaded weights hold."""
        if self.card.device.type == "cpu":
            return self._weights_bytes - RESERVE_BYTES
        return self._transformer_bytes if self.transformer == "streamed" else 0

    @property
    def placement(self) -> tuple:
        """What can't be changed once the weights are loaded."""
        return self.transformer, self.quantization, self.text_encoder, self.text_quantization, self.dtype

    @property
    def reason(self) -> str:
        """What was chosen and why, in a sentence."""
        card, shape = self.card, self.shape
        precision = str(self.dtype).removeprefix("torch.")
        if self.quantization == "fp8":
            kept = f"float8 weights, computed in {precision}"
        elif self.sizes.stored != "plain":
            kept = f"{self.sizes.stored} weights as in the file, computed in {precision}"
        else:
            kept = precision
        if card.device.type == "cpu":
            places = f"everything is computed by the processor ({kept})"
        elif self.transformer == "resident" and self.text_encoder == "resident":
            text = f"the text encoder in {'float8' if self.text_quantization == 'fp8' else precision}"
            places = f"everything stays on the card, the transformer in {kept} and {text}"
        elif self.transformer == "resident":
            places = (
                f"the transformer ({kept}) stays on the card, the text encoder streams through it by prompt"
            )
        else:
            places = (
                f"the transformer ({kept}) streams through the card block by block,"
                " and so does the text encoder"
            )
        tiles = ", frames are decoded in tiles" if self.vae_tiling else ""
        doubt = "" if self.fits else "; that may not be enough"
        return (
            f"{card.name} has {card.free_bytes / GIB:.1f} GiB free and {shape.width} x {shape.height} x"
            f" {shape.num_frames} takes {self.peak_bytes / GIB:.1f}: {places}{tiles}{doubt}."
        )

    @property
    def fits(self) -> bool:
        """Whether the card's and the host's memory are enough."""
        return self.peak_bytes <= self.card.free_bytes and self._host_carries

    def step_down(self) -> MemoryPlan | None:
        """The next rung that takes less of the card and that the host can carry; None below the last."""
        rungs = ladder(self.card, self.sizes, self.shape)
        below = rungs[rungs.index(self) + 1 :]
        return next(
            (rung for rung in below if rung.peak_bytes < self.peak_bytes and rung._host_carries), None
        )

    def load_options(self, component: Literal["transformer", "vae", "text_encoder"]) -> dict[str, Any]:
        """How `load_transformer`, `load_vae` or `load_text_encoder` is to load it: precision, device,
        quantisation."""
        device, host = self.card.device, torch.device("cpu")
        if component == "transformer":
            place = device if self.transformer == "resident" else host
            return {"torch_dtype": self.dtype, "device": place, "quantization": self.quantization}
        if component == "text_encoder":
            place = device if self.text_encoder == "resident" else host
            # UMT5 leaves float16's range.
            dtype = torch.bfloat16 if self.dtype == torch.float16 else self.dtype
            return {"torch_dtype": dtype, "device": place, "quantization": self.text_quantization}
        return {"torch_dtype": self._vae_dtype, "device": device}

    def apply(self, components: Mapping[str, nn.Module | Any]) -> None:
        """Place what was loaded with `load_options`, LoRAs attached, where the plan wants it.

        `components` are a pipeline's: `transformer`, `vae` and `text_encoder` are looked at, where there are
        any.
        """
        if (vae := components.get("vae")) is not None:
            vae.to(self.card.device)
            vae.enable_tiling() if self.vae_tiling else vae.disable_tiling()
        if (transformer := components.get("transformer")) is not None:
            self._place(transformer, self.transformer, offload_type="block_level", num_blocks_per_group=1)
        if (text_encoder := components.get("text_encoder")) is not None:
            keep_embedding_on_host(text_encoder)
            # Its weights stay mapped from their file: pinned, they would take the memory that streaming
            # saves.
            self._place(
                text_encoder.encoder, self.text_encoder, offload_type="leaf_level", low_cpu_mem_usage=True
            )

    def _place(self, module: nn.Module, place: str, **options: Any) -> None:
        device = self.card.device
        if place == "resident":
            module.to(device)
            return
        # Loading nothing ahead, streaming would wait for every transfer; only CUDA has what it takes.
        apply_group_offloading(module, onload_device=device, use_stream=device.type == "cuda", **options)

    @property
    def _vae_dtype(self) -> torch.dtype:
        # Where there is no bfloat16; float16 is too narrow for the VAE's features.
        return torch.float32 if self.dtype == torch.float16 else self.dtype

    @property
    def _host_carries(self) -> bool:
        return self.host_bytes <= self.card.host_bytes

    def _bytes(self, parameters: int, quantization: Quantization, stored: str = "plain") -> int:
        if quantization == "fp8":
            return round(parameters * FLOAT8_BYTES_PER_VALUE)
        if stored != "plain":
            return round(parameters * self.sizes.stored_bytes_per_value)
        return parameters * self.dtype.itemsize

    @property
    def _transformer_bytes(self) -> int:
        sizes = self.sizes
        blocks = self._bytes(sizes.blocks * sizes.block, self.quantization, sizes.stored)
        return blocks + self._bytes(sizes.transformer - sizes.blocks * sizes.block, None)

    @property
    def _weights_bytes(self) -> int:
        """What is on the card throughout, the reserve included."""
        sizes = self.sizes
        if self.transformer == "resident":
            weights = self._transformer_bytes
        else:
            weights = self._bytes(sizes.transformer - sizes.blocks * sizes.block, None)
            weights += self._bytes(STREAMED_BLOCKS * sizes.block, self.quantization, sizes.stored)
        if self.text_encoder == "resident":
            weights += self._bytes(sizes.text_layers, self.text_quantization)
        return weights + sizes.vae * self._vae_dtype.itemsize + RESERVE_BYTES

    @property
    def _pixels(self) -> int:
        return self.shape.width * self.shape.height * self.shape.batch_size

    @property
    def _denoising_bytes(self) -> int:
        sizes, shape = self.sizes, self.shape
        rows, columns = sizes.grid.tokens(shape.height, shape.width)
        tokens = sizes.grid.latent_frames(shape.num_frames) * rows * columns * shape.batch_size
        features = TRANSFORMER_FFN_ROWS * sizes.ffn_dim + TRANSFORMER_DIM_ROWS * sizes.dim
        # A quantised layer's weight is expanded while it computes: the feed-forward's is the largest.
        expanded = (
            2 * sizes.dim * sizes.ffn_dim if self.quantization == "fp8" or sizes.stored != "plain" else 0
        )
        return round((tokens * features + expanded) * self.dtype.itemsize)

    @property
    def _decoding_bytes(self) -> int:
        whole = VAE_DECODE_BYTES_PER_PIXEL * self._pixels
        tiled = VAE_TILE_BYTES * self.shape.batch_size + VAE_TILED_BYTES_PER_PIXEL * self._pixels
        return (min(tiled, whole) if self.vae_tiling else whole) * self._vae_dtype.itemsize // 2

    @property
    def _encoding_bytes(self) -> int:
        return VAE_ENCODE_BYTES_PER_PIXEL * self._pixels * self._vae_dtype.itemsize // 2

    @property
    def _text_bytes(self) -> int:
        return TEXT_BYTES * self.dtype.itemsize // 2


CUDA_RUNGS = (  # transformer, its quantisation, text encoder, its quantisation, tiles
    ("resident", None, "resident", None, False),
    ("resident", None, "resident", "fp8", False),
    ("resident", None, "streamed", None, False),
    ("resident", None, "streamed", None, True),
    ("streamed", None, "streamed", None, False),
    ("streamed", None, "streamed", None, True),
    ("resident", "fp8", "streamed", None, False),
    ("resident", "fp8", "streamed", None, True),
    ("streamed", "fp8", "streamed", None, True),
)
CPU_RUNGS = (  # precision, quantisation, tiles
    (torch.float32, None, False),
    (torch.bfloat16, None, False),
    (torch.bfloat16, None, True),
    (torch.bfloat16, "fp8", True),
)


def plan(card: Card, sizes: ModelSizes, shape: Shape, loaded: MemoryPlan | None = None) -> MemoryPlan:
    """The first rung of the ladder that the card and its host carry; the last one where none does.

    Weights that are `loaded` stay as they are while the shape fits beside them: what other programs take or
    free in between costs no reading, and changes no frame of a seed.
    """
    rungs = ladder(card, sizes, shape)
    kept = [rung for rung in rungs if loaded is not None and rung.placement == loaded.placement]
    return next((rung for rung in [*kept, *rungs] if rung.fits), rungs[-1])


def ladder(card: Card, sizes: ModelSizes, shape: Shape) -> list[MemoryPlan]:
    """Every way to keep the model on this card, from the fastest and nearest to the release down to the
    smallest.

    Streaming comes before float8: a block arrives while the one before it is computed, and nothing is
    rounded.
    """
    if card.device.type == "cpu":
        rungs = [
            MemoryPlan(card, sizes, shape, "resident", "resident", quantization, quantization, tiling, dtype)
            for dtype, quantization, tiling in CPU_RUNGS
        ]
    else:
        dtype = torch.bfloat16 if card.bfloat16 else torch.float16
        rungs = [
            MemoryPlan(
                card, sizes, shape, transformer, text_encoder, quantization, text_quantization, tiling, dtype
            )
            for transformer, quantization, text_encoder, text_quantization, tiling in CUDA_RUNGS
        ]
    # What the file has quantised stays as it is.
    return [rung for rung in rungs if rung.quantization is None or sizes.stored == "plain"]


def keep_embedding_on_host(text_encoder: nn.Module) -> None:
    """Take the token embedding out of what moves with a UMT5 encoder: 2 GB, of which a prompt reads 512
    rows."""
    if isinstance(text_encoder.shared, HostEmbedding):
        return
    embedding = HostEmbedding(text_encoder.shared.weight.detach().cpu())
    text_encoder.shared = text_encoder.encoder.embed_tokens = embedding


class HostEmbedding(nn.Module):
    """A look-up in a table that stays where it is, [vocabulary, features]; the rows go to where the ids
    are."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self._table = (weight,)  # not a parameter, which would move along with the model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        (weight,) = self._table
        return functional.embedding(ids.to(weight.device), weight).to(ids.device)


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
