"""Windows of latents to frames, one window after the other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from ..models.streaming_vae import decode_frames, to_images
from .cancellation import interruptible

Check = Callable[[], None] | None


@dataclass(frozen=True, eq=False)
class Frames:
    """Finished frames from `index` on: uint8 [B, n, H, W, 3]."""

    index: int
    images: np.ndarray


def decode_images(vae: AutoencoderKLWan, latents: torch.Tensor, check: Check = None) -> Iterator[np.ndarray]:
    """uint8 [B, n, H, W, 3], 1 and then 4 frames at a time, from latents `[B, C, F, h, w]`.

    Where the card's memory runs out it goes on in tiles, which differ slightly from the whole picture; the
    VAE's tiling is then on for good, by which the caller can tell.
    """
    done = 0
    while True:
        try:
            with interruptible([vae.decoder.mid_block, *vae.decoder.up_blocks], check):
                for index, video in enumerate(decode_frames(vae, latents)):
                    if index >= done:
                        yield to_images(video)
                        done = index + 1
            return
        except torch.OutOfMemoryError:
            if vae.use_tiling:
                raise
        torch.cuda.empty_cache()
        vae.enable_tiling()


class WindowDecoder:
    """Decodes window after window, each of which may begin with frames that the one before has shown.

    A window is decoded before the next is denoised, which begins with its last picture. Decoding beside the
    denoising would have to guess that picture, and what comes of a seed would depend on the card's memory.
    """

    def __init__(self, vae: AutoencoderKLWan, check: Check = None):
        self._vae, self._check = vae, check
        self._shown = 0

    def decode(self, latents: torch.Tensor, start: int) -> Generator[Frames, None, np.ndarray]:
        """Decode a window `[B, C, F, h, w]` that begins at frame `start`; yields the frames not shown yet.

        Returns its last picture, uint8 [B, H, W, 3].
        """
        for images in decode_images(self._vae, latents, self._check):
            fresh = images[:, max(self._shown - start, 0) :]
            if fresh.shape[1]:
                yield Frames(self._shown, fresh)
                self._shown += fresh.shape[1]
            start += images.shape[1]
        return images[:, -1]
