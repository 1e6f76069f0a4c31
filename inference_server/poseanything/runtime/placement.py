"""Fitting the model to the card: what stays on it, what streams through it, in which precision, and why.

A plan is the first rung of a ladder that the card's free memory and the host's can carry. The higher rungs
are faster, and nearer to the model as released; `MemoryPlan.step_down` is for when one of the two turns out
to hold less than it said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from shared.sentences import Sentence, one_after_another, say

from ..checkpoints.loading import Quantization
from .card import GIB, Card
from .out_of_memory import Place
from .requirements import (
    FLOAT8_BYTES_PER_VALUE,
    TEXT_BYTES,
    ModelSizes,
    Shape,
    decoding_bytes,
    denoising_bytes,
    encoding_bytes,
)
from .streaming import PINNED_SLOTS, BlockStream, keep_embedding_on_host

RESERVE_BYTES = 768 * 2**20
"""For cuBLAS' and cuDNN's workspaces, and what the allocator can't join."""
HOST_RESERVE_BYTES = 3 * GIB
"""For the interpreter and its libraries, and the rest of the system."""
OTHERS_BYTES = 2 * GIB
"""What other programs may hold of a card before it is told; a desktop and CUDA itself take some."""
MARGIN = 0.15
"""Of the card's free memory, what blocks that stay on it only where there is room leave alone: torch's
allocator was measured to hold 8 to 13 % more than is in use."""

Residency = Literal["all", "most", "none"]


@dataclass(frozen=True)
class Rung:
    """A way to keep the model. `blocks`: which of the transformer's stay on the card."""

    blocks: Residency
    text_encoder: Literal["resident", "streamed"]
    quantization: Quantization = None
    vae_tiling: bool = False
    dtype: torch.dtype | None = None
    """None for the card's."""


# Streaming comes before float8: a block arrives while the one before it is computed, and nothing is rounded.
CUDA_RUNGS = (
    Rung("all", "resident"),
    Rung("all", "streamed"),
    Rung("all", "streamed", vae_tiling=True),
    Rung("most", "streamed"),
    Rung("none", "streamed"),
    Rung("none", "streamed", vae_tiling=True),
    Rung("all", "streamed", "fp8"),
    Rung("all", "streamed", "fp8", vae_tiling=True),
    Rung("most", "streamed", "fp8", vae_tiling=True),
    Rung("none", "streamed", "fp8", vae_tiling=True),
)
FLOAT8_RUNGS = (Rung("all", "resident", "fp8"), *(rung for rung in CUDA_RUNGS if rung.quantization == "fp8"))
"""Where float8 is asked for."""
CPU_RUNGS = (
    Rung("all", "resident", dtype=torch.float32),
    Rung("all", "resident", dtype=torch.bfloat16),
    Rung("all", "resident", vae_tiling=True, dtype=torch.bfloat16),
    Rung("all", "resident", "fp8", vae_tiling=True, dtype=torch.bfloat16),
)


@dataclass(frozen=True)
class MemoryPlan:
    """How the model is kept while clips of one shape are made.

    Weights are loaded with `load_options`, then placed by `apply`. The transformer's blocks and the text
    encoder's stay on the card, or lie in the host's memory and stream through it (the transformer's always
    one ahead of the computation; the text encoder's once for each new prompt).
    """

    card: Card
    sizes: ModelSizes
    shape: Shape
    rung: Rung
    resident_blocks: int
    """Of the transformer's, how many stay on the card."""
    float8: bool = False
    """Whether float8 is asked for, and not only where memory is short."""

    @property
    def dtype(self) -> torch.dtype:
        """What the transformer computes in."""
        return self.rung.dtype or (torch.bfloat16 if self.card.bfloat16 else torch.float16)

    @property
    def transformer(self) -> Literal["resident", "streamed"]:
        return "resident" if self.resident_blocks == self.sizes.blocks else "streamed"

    @property
    def text_encoder(self) -> Literal["resident", "streamed"]:
        return self.rung.text_encoder

    @property
    def quantization(self) -> Quantization:
        """Of the transformer's blocks; on the processor of the text encoder's too."""
        return self.rung.quantization

    @property
    def vae_tiling(self) -> bool:
        return self.rung.vae_tiling

    @property
    def peak_bytes(self) -> int:
        """The most that is on the card at any time."""
        shape, sizes = self.shape, self.sizes
        expands = self.quantization == "fp8" or sizes.stored != "plain"
        return self._weights_bytes + max(
            denoising_bytes(sizes, shape, self.dtype.itemsize, expands),
            decoding_bytes(shape, self._vae_dtype.itemsize, self.vae_tiling),
            encoding_bytes(shape, self._vae_dtype.itemsize),
            self._text_bytes,
        )

    @property
    def host_bytes(self) -> int:
        """The most that is kept in the host's memory; the text encoder's file is mapped, not read, when it
        streams."""
        if self.card.device.type == "cpu":
            return self.peak_bytes + HOST_RESERVE_BYTES
        return self._streamed_bytes + HOST_RESERVE_BYTES

    @property
    def held_bytes(self) -> int:
        """What of the host's memory the loaded weights hold. What streams is pinned, not a byte more."""
        return self._weights_bytes - RESERVE_BYTES if self.card.device.type == "cpu" else self._streamed_bytes

    @property
    def placement(self) -> tuple:
        """What can't be changed once the weights are loaded."""
        return self.resident_blocks, self.quantization, self.text_encoder, self.dtype

    @property
    def reason(self) -> str:
        """What was chosen and why, in a few sentences."""
        told = [self._need, self._places]
        if self.vae_tiling:
            told.append(say("Frames are decoded in tiles."))
        if not self.fits:
            told.append(say("That may not be enough."))
        return one_after_another(*told)

    @property
    def _need(self) -> Sentence:
        """How much memory there is, and how much a clip takes."""
        card = self.card
        told = card.others_bytes > OTHERS_BYTES and self.text_encoder == "streamed"
        return say(
            "{card} has {free:.1f} GiB free, while other programs hold {others:.1f}, and {clip} takes "
            "{needed:.1f}."
            if told
            else "{card} has {free:.1f} GiB free and {clip} takes {needed:.1f}.",
            card=card.name,
            free=card.free_bytes / GIB,
            others=card.others_bytes / GIB,
            clip=self._clip,
            needed=self.peak_bytes / GIB,
        )

    @property
    def _places(self) -> Sentence:
        """Where what is, and in which precision."""
        if self.card.device.type == "cpu":
            template = "Everything is computed by the processor ({precision})."
        elif self.text_encoder == "resident":
            template = "Everything stays on the card ({precision})."
        elif self.transformer == "resident":
            template = (
                "The transformer ({precision}) stays on the card, the text encoder streams through it by "
                "prompt."
            )
        elif self.resident_blocks:
            template = (
                "{count} of the transformer's {total} blocks ({precision}) stay on the card, the others "
                "stream through it, and so does the text encoder."
            )
        else:
            template = (
                "The transformer ({precision}) streams through the card block by block, and so does the text "
                "encoder."
            )
        count, total = self.resident_blocks, self.sizes.blocks
        return say(template, precision=self._precision, count=count, total=total)

    @property
    def _precision(self) -> str:
        dtype, stored = str(self.dtype).removeprefix("torch."), self.sizes.stored
        if self.quantization == "fp8":
            return say("float8 weights, computed in {dtype}", dtype=dtype)
        if stored != "plain":
            return say("{stored} weights as in the file, computed in {dtype}", stored=stored, dtype=dtype)
        return dtype

    @property
    def _clip(self) -> str:
        return f"{self.shape.width} x {self.shape.height} x {self.shape.num_frames}"

    @property
    def shortage(self) -> Sentence:
        """What is wrong where memory ran out on this rung and there is none below, and what to do."""
        card, needed = self.card, self.peak_bytes
        if self.host_bytes > card.host_bytes and card.device.type != "cpu":
            return say(
                "A clip of {clip} takes {needed:.1f} GiB of the machine's memory, which has {free:.1f} free; "
                "close other programs, or choose a smaller size or fewer frames.",
                clip=self._clip,
                needed=self.host_bytes / GIB,
                free=card.host_bytes / GIB,
            )
        if self.fits:
            template = (
                "Memory ran out though there seemed to be enough of it for this clip; choose a smaller size "
                "or fewer frames."
            )
        elif card.total_bytes and needed > card.total_bytes:
            template = (
                "A clip of {clip} takes at least {needed:.1f} GiB of {card}, which has {total:.1f} in all; "
                "choose a smaller size or fewer frames, or use a larger card."
            )
        elif card.others_bytes:
            template = (
                "A clip of {clip} takes at least {needed:.1f} GiB of {card}, which has {free:.1f} free while "
                "other programs hold {others:.1f}; close other programs, or choose a smaller size or fewer "
                "frames."
            )
        else:
            template = (
                "A clip of {clip} takes at least {needed:.1f} GiB, and {free:.1f} are free; close other "
                "programs, or choose a smaller size or fewer frames."
            )
        return say(
            template,
            clip=self._clip,
            card=card.name,
            needed=needed / GIB,
            free=card.free_bytes / GIB,
            total=card.total_bytes / GIB,
            others=card.others_bytes / GIB,
        )

    @property
    def fits(self) -> bool:
        """Whether the card's and the host's memory are enough."""
        return self._card_carries and self._host_carries

    def step_down(self, where: Place = "card") -> MemoryPlan | None:
        """The next rung that takes less of the memory that ran out and that the other can carry; None below
        the last."""
        rungs = ladder(self.card, self.sizes, self.shape, self.float8)
        order = rungs_for(self.card, self.sizes, self.float8)
        below = [plan for plan in rungs if order.index(plan.rung) > order.index(self.rung)]
        if where == "card" or self.card.device.type == "cpu":
            return next((p for p in below if p.peak_bytes < self.peak_bytes and p._host_carries), None)
        lighter = [plan for plan in below if plan.host_bytes < self.host_bytes]
        return next((plan for plan in lighter if plan._card_carries), next(iter(lighter), None))

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
            return {"torch_dtype": dtype, "device": place, "quantization": self._text_quantization}
        return {"torch_dtype": self._vae_dtype, "device": device}

    def apply(self, components: Mapping[str, nn.Module | Any]) -> list[BlockStream]:
        """Place what was loaded with `load_options` where the plan wants it; returns what streams.

        `components` are a pipeline's: `transformer`, `vae` and `text_encoder` are looked at, where there are
        any.
        """
        device, streams = self.card.device, []
        if (vae := components.get("vae")) is not None:
            vae.to(device)
            vae.enable_tiling() if self.vae_tiling else vae.disable_tiling()
        if (transformer := components.get("transformer")) is not None:
            if self.transformer == "resident":
                transformer.to(device)
            else:
                streamed = spread(transformer.blocks, len(transformer.blocks) - self.resident_blocks)
                streams.append(BlockStream(streamed, device, pin=True))
                _move_others(transformer, streamed, device)
        if (text_encoder := components.get("text_encoder")) is not None:
            keep_embedding_on_host(text_encoder)
            encoder = text_encoder.encoder
            if self.text_encoder == "resident":
                encoder.to(device)
            else:
                # Pinned, its weights would take the memory that streaming saves: they are mapped from a file.
                streams.append(BlockStream(encoder.block, device, pin=False))
                _move_others(encoder, encoder.block, device)
        return streams

    @property
    def _text_quantization(self) -> Quantization:
        return self.quantization if self.card.device.type == "cpu" else None

    @property
    def _vae_dtype(self) -> torch.dtype:
        # Where there is no bfloat16; float16 is too narrow for the VAE's features.
        return torch.float32 if self.dtype == torch.float16 else self.dtype

    @property
    def _card_carries(self) -> bool:
        return self.peak_bytes <= self.card.free_bytes

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
    def _block_bytes(self) -> int:
        return self._bytes(self.sizes.block, self.quantization, self.sizes.stored)

    @property
    def _streamed_bytes(self) -> int:
        return (self.sizes.blocks - self.resident_blocks) * self._block_bytes

    @property
    def _weights_bytes(self) -> int:
        """What is on the card throughout, the reserve included."""
        sizes = self.sizes
        on_card = self.resident_blocks + min(PINNED_SLOTS, sizes.blocks - self.resident_blocks)
        weights = self._bytes(sizes.transformer - sizes.blocks * sizes.block, None)
        weights += on_card * self._block_bytes
        if self.text_encoder == "resident":
            weights += self._bytes(sizes.text_layers, self._text_quantization)
        return weights + sizes.vae * self._vae_dtype.itemsize + sizes.adapter_bytes + RESERVE_BYTES

    @property
    def _text_bytes(self) -> int:
        block = 0 if self.text_encoder == "resident" else self.sizes.text_layers // self.sizes.text_blocks
        return (TEXT_BYTES // 2 + block) * self.dtype.itemsize


def plan(
    card: Card, sizes: ModelSizes, shape: Shape, loaded: MemoryPlan | None = None, float8: bool = False
) -> MemoryPlan:
    """The first rung of the ladder that the card and its host carry; the last one where none does.

    `float8` asks for the transformer's blocks in float8, for its products.
    Weights that are `loaded` stay as they are while the shape fits beside them: what other programs take or
    free in between costs no reading, and changes no frame of a seed.
    """
    rungs = ladder(card, sizes, shape, float8)
    kept = _as_loaded(rungs, loaded) if loaded is not None and loaded.float8 == float8 else []
    return next((rung for rung in [*kept, *rungs] if rung.fits), rungs[-1])


def _as_loaded(rungs: list[MemoryPlan], loaded: MemoryPlan) -> list[MemoryPlan]:
    same = [replace(rung, resident_blocks=loaded.resident_blocks) for rung in rungs]
    return [
        one for one in same if one.placement == loaded.placement and one.rung.blocks == loaded.rung.blocks
    ]


def rungs_for(card: Card, sizes: ModelSizes, float8: bool) -> tuple[Rung, ...]:
    """The rungs for this card and file, in their order. What the file has quantised stays as it is."""
    every = CPU_RUNGS if card.device.type == "cpu" else CUDA_RUNGS
    if sizes.stored != "plain":
        return tuple(rung for rung in every if rung.quantization is None)
    if not float8:
        return every
    return tuple(rung for rung in CPU_RUNGS if rung.quantization) if every is CPU_RUNGS else FLOAT8_RUNGS


def ladder(card: Card, sizes: ModelSizes, shape: Shape, float8: bool = False) -> list[MemoryPlan]:
    """Every way to keep the model on this card, from the fastest and nearest to the release down to the
    smallest."""
    rungs = []
    for rung in rungs_for(card, sizes, float8):
        least = MemoryPlan(card, sizes, shape, rung, resident_blocks=0, float8=float8)
        if rung.blocks == "none":
            rungs.append(least)
        elif rung.blocks == "all":
            rungs.append(replace(least, resident_blocks=sizes.blocks))
        else:
            room = round((1 - MARGIN) * card.free_bytes) - least.peak_bytes
            # With fewer than its slots to stream, the stream would take more than it saves.
            count = min(room // least._block_bytes, sizes.blocks - PINNED_SLOTS - 1)
            if count > 0:
                rungs.append(replace(least, resident_blocks=count))
    return rungs


def spread(blocks: nn.ModuleList, count: int) -> list[nn.Module]:
    """So many of the blocks, evenly spread: those between hide the copying."""
    return [blocks[index * len(blocks) // count] for index in range(count)]


def _move_others(model: nn.Module, streamed: list[nn.Module] | nn.ModuleList, device: torch.device) -> None:
    """Move a model's parameters and buffers but those of the blocks that stream."""
    streaming = {id(tensor) for block in streamed for tensor in [*block.parameters(), *block.buffers()]}
    for tensor in [*model.parameters(), *model.buffers()]:
        if id(tensor) not in streaming:
            tensor.data = tensor.data.to(device)
