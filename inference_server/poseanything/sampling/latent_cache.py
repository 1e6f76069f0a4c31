"""Latents of pictures that were encoded before, by what the pictures hold."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

MOST_BYTES = 512 * 2**20


class LatentCache:
    """Keeps, for each VAE, the latents that it made, in the host's memory; the longest unused are forgotten.

    Another prompt, seed or guidance strength, and a clip begun anew after memory ran out, encode nothing
    again.

    Args:
        most_bytes: of all the latents of one VAE together.
    """

    def __init__(self, most_bytes: int = MOST_BYTES):
        self._most_bytes = most_bytes
        self._latents: WeakKeyDictionary[nn.Module, OrderedDict[bytes, torch.Tensor]] = WeakKeyDictionary()

    def get(self, vae: nn.Module, images: np.ndarray) -> torch.Tensor | None:
        """`[1, C, F, h, w]` of uint8 images `[F, H, W]` or `[F, H, W, 3]`, None where there are none yet."""
        kept, key = self._latents.setdefault(vae, OrderedDict()), digest(images)
        if key in kept:
            kept.move_to_end(key)
        return kept.get(key)

    def put(self, vae: nn.Module, images: np.ndarray, latents: torch.Tensor) -> None:
        kept = self._latents.setdefault(vae, OrderedDict())
        kept[digest(images)] = latents.cpu()
        while sum(one.nbytes for one in kept.values()) > self._most_bytes:
            kept.popitem(last=False)


def digest(images: np.ndarray) -> bytes:
    """A fingerprint of an array's shape, type and values."""
    # Processors have instructions of their own for it: half the time of blake2b.
    found = hashlib.sha256(f"{images.shape} {images.dtype}".encode())
    found.update(np.ascontiguousarray(images).data)
    return found.digest()
