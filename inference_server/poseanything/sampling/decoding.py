"""Latents to frames, as soon as latents are final."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from ..models.streaming_vae import FrameDecoder, Images
from .cancellation import interruptible

Check = Callable[[], None] | None


@dataclass(frozen=True, eq=False)
class Frames:
    """Finished frames from `index` on: uint8 [B, n, H, W, 3]."""

    index: int
    images: np.ndarray


class ClipDecoder:
    """Decodes a clip's latent frames in order, as its windows are finished.

    The VAE remembers what it has seen across windows, so the frames are those of the whole clip decoded at
    once. Where the card's memory runs out it begins anew in tiles, which differ slightly from the whole
    picture, and goes on after the last frame shown; the VAE's tiling is then on for good, by which the caller
    can tell.

    On a card a frame is handed on while the next one is being decoded: the card doesn't wait for whoever
    takes it.
    """

    def __init__(self, vae: AutoencoderKLWan, check: Check = None):
        self._vae, self._check = vae, check
        self._decoder = FrameDecoder(vae)
        self._latents: list[torch.Tensor] = []
        self._decoded = self._shown = 0

    def decode(self, latents: torch.Tensor) -> Iterator[Frames]:
        """Decode the clip's next latent frames, `[B, C, n, h, w]`; yields the frames they make, 1 and then as
        many at a time as a latent frame holds."""
        vae = self._vae
        self._latents.append(latents)
        while True:
            try:
                with interruptible([vae.decoder.mid_block, *vae.decoder.up_blocks], self._check):
                    coming: Images | None = None
                    for video in self._decoder.decode(latents):
                        images = Images(video)
                        if coming is not None:
                            yield from self._show(coming)
                        coming = images if images.on_their_way else None
                        if coming is None:
                            yield from self._show(images)
                    if coming is not None:
                        yield from self._show(coming)
                return
            except torch.OutOfMemoryError:
                if vae.use_tiling:
                    raise
            torch.cuda.empty_cache()
            vae.enable_tiling()
            self._decoder, self._decoded = FrameDecoder(vae), 0
            latents = torch.cat(self._latents, dim=2)

    def _show(self, images: Images) -> Iterator[Frames]:
        """The next of the clip's frames, without those that were shown before it was begun anew."""
        frames, start = images.array(), self._decoded
        self._decoded += frames.shape[1]
        if self._decoded > self._shown:
            fresh = frames[:, max(self._shown - start, 0) :]
            yield Frames(self._decoded - fresh.shape[1], fresh)
            self._shown = self._decoded
