"""Blocks that lie in the host's memory and pass through the card while the model computes.

diffusers' group offloading does the like, but it pins every tensor by itself, which torch's allocator rounds
up to a power of two (1.67 times the model's size in all), waits for the card after each block, and knows no
model of which some blocks stay.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from diffusers.hooks import HookRegistry, ModelHook
from torch import nn
from torch.nn import functional

log = logging.getLogger(__name__)

ALIGNMENT = 256
"""Bytes at whose multiples tensors begin, as those of torch's own allocator do at the least."""
PINNED_SLOTS = 2
"""Blocks on the card while they stream: the one computed, and the next one on its way."""
HOOK = "poseanything_stream"


class BlockStream:
    """Lets blocks compute on a device that holds a few of them at a time.

    Each block's weights are laid into one piece of host memory. With `pin` that is pinned, exactly as many
    bytes as it has, and the next block is copied while one computes. Without it the weights stay where they
    are (a file mapped into memory) and a block is copied when its turn comes. Memory on the device is taken
    with the first block's turn and given back by `park`.

    Weights that are added to the blocks afterwards (LoRAs) don't stream. `park` before those that stream are
    changed: the device may hold copies of them.

    Args:
        blocks: in the order in which they run; another order only costs time.
        device: where they compute.
        pin: whether weights are copied ahead, from pinned memory where the device is CUDA's.
    """

    def __init__(self, blocks: Iterable[nn.Module], device: torch.device, pin: bool):
        self.device, self.pin = device, pin
        self.blocks = [HostBlock(block, pin and device.type == "cuda", pack=pin) for block in blocks]
        self._slot_bytes = max((block.nbytes for block in self.blocks), default=0)
        self._slots: list[Slot] = []
        self._copying = torch.cuda.Stream(device) if pin and device.type == "cuda" else None
        for index, block in enumerate(self.blocks):
            hook = _StreamHook(self, index)
            HookRegistry.check_if_exists_or_initialize(block.module).register_hook(hook, HOOK)

    @property
    def host_bytes(self) -> int:
        """Of the host's memory, what the blocks hold where they are copied ahead."""
        return sum(block.nbytes for block in self.blocks) if self.pin else 0

    def park(self) -> None:
        """Take every weight back to the host and give the device's memory back, once what is under way is
        done."""
        if self._slots and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        for block in self.blocks:
            block.to_host()
        self._slots = []

    def enter(self, index: int) -> None:
        """Let block `index` have its weights on the device, and send for the next one's."""
        slot = self._slot_of(index) or self._send(index)
        self._slots.remove(slot)
        self._slots.append(slot)  # used last, so that it is given to no other block now
        if slot.ready is not None:
            torch.cuda.current_stream(self.device).wait_event(slot.ready)
        self.blocks[index].to_views(slot.views)
        if self.pin:
            following = (index + 1) % len(self.blocks)
            if self._slot_of(following) is None:
                self._send(following)

    def leave(self, index: int) -> None:
        """Block `index` has computed."""
        self.blocks[index].to_host()
        slot = self._slot_of(index)
        if slot is not None and self._copying is not None:
            slot.free = torch.cuda.current_stream(self.device).record_event()
        if not self.pin and index == len(self.blocks) - 1:
            self._slots = []

    def _slot_of(self, index: int) -> Slot | None:
        return next((slot for slot in self._slots if slot.block == index), None)

    def _send(self, index: int) -> Slot:
        """Copy a block into the slot that was used longest ago."""
        wanted = min(PINNED_SLOTS if self.pin else 1, len(self.blocks))
        if len(self._slots) < wanted:
            memory = torch.empty(self._slot_bytes, dtype=torch.uint8, device=self.device)
            slot = Slot(memory)
            if self._copying is not None:
                # The memory may be what a kernel under way has let go of.
                slot.free = torch.cuda.current_stream(self.device).record_event()
        else:
            slot = self._slots.pop(0)
            if slot.block is not None:
                self.blocks[slot.block].to_host()  # where a forward was left in its middle
        self._slots.append(slot)
        slot.block = index
        if self._copying is None:
            slot.views = self.blocks[index].copy(slot.memory)
        else:
            with torch.cuda.stream(self._copying):
                if slot.free is not None:
                    self._copying.wait_event(slot.free)
                slot.views = self.blocks[index].copy(slot.memory)
                slot.ready = self._copying.record_event()
        return slot


class Slot:
    """Room for a block on the device."""

    def __init__(self, memory: torch.Tensor):
        self.memory = memory
        self.block: int | None = None
        self.views: list[torch.Tensor] = []
        self.ready: torch.cuda.Event | None = None
        """When the block's weights have arrived."""
        self.free: torch.cuda.Event | None = None
        """When what computed with the last weights is done."""


@dataclass(frozen=True)
class Piece:
    """Where a tensor lies in its block's memory."""

    offset: int
    nbytes: int
    dtype: torch.dtype
    shape: torch.Size

    def view(self, memory: torch.Tensor) -> torch.Tensor:
        return memory[self.offset : self.offset + self.nbytes].view(self.dtype).view(self.shape)


class HostBlock:
    """A block's parameters and buffers on the host, in one piece of memory where they are to be packed."""

    def __init__(self, module: nn.Module, pin: bool, pack: bool):
        self.module = module
        self._owners: Sequence[torch.Tensor] = list(dict.fromkeys([*module.parameters(), *module.buffers()]))
        self._pieces, self.nbytes = [], 0
        for owner in self._owners:
            self._pieces.append(Piece(self.nbytes, owner.nbytes, owner.dtype, owner.shape))
            self.nbytes += -(-owner.nbytes // ALIGNMENT) * ALIGNMENT
        self._packed: torch.Tensor | None = None
        if pack:
            self._packed = torch.empty(self.nbytes, dtype=torch.uint8)
            for owner, view in zip(self._owners, self._cut(self._packed), strict=True):
                view.copy_(owner.data)
                owner.data = view
            if pin:
                pin_exactly(self._packed)
        self._at_home = [owner.data for owner in self._owners]

    def _cut(self, memory: torch.Tensor) -> list[torch.Tensor]:
        return [piece.view(memory) for piece in self._pieces]

    def copy(self, memory: torch.Tensor) -> list[torch.Tensor]:
        """Copy the weights into memory of the device; returns them there."""
        if self._packed is not None:
            memory[: self.nbytes].copy_(self._packed, non_blocking=True)
            return self._cut(memory)
        views = self._cut(memory)
        for view, home in zip(views, self._at_home, strict=True):
            view.copy_(home)
        return views

    def to_views(self, views: Sequence[torch.Tensor]) -> None:
        for owner, view in zip(self._owners, views, strict=True):
            owner.data = view

    def to_host(self) -> None:
        self.to_views(self._at_home)


class _StreamHook(ModelHook):
    def __init__(self, stream: BlockStream, index: int):
        self._stream, self._index = stream, index

    def pre_forward(self, module: nn.Module, *args, **kwargs):
        self._stream.enter(self._index)
        return args, kwargs

    def post_forward(self, module: nn.Module, output):
        self._stream.leave(self._index)
        return output


def pin_exactly(memory: torch.Tensor) -> bool:
    """Pin a tensor's memory where it lies, for as long as it lives; says whether that could be done.

    `Tensor.pin_memory` would round it up to a power of two. Where the system allows no more pinned memory the
    copies are slower, nothing else.
    """
    address, cudart = memory.data_ptr(), torch.cuda.cudart()
    portable = 1
    status = int(cudart.cudaHostRegister(address, memory.nbytes, portable))
    if status:
        log.warning("The system pins no more memory (CUDA error %d); weights stream more slowly.", status)
        try:  # CUDA tells the next call of the last one's failure
            torch.zeros(1, device="cuda")
        except RuntimeError:
            pass
        return False
    weakref.finalize(memory, cudart.cudaHostUnregister, address).atexit = False
    return True


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
