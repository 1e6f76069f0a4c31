"""Windows of latents to frames, one after the other or beside the denoising of the next window."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from ..conditioning.parts.matching import FRAMES_PER_LATENT
from ..models.streaming_vae import decode_frames, to_images
from .cancellation import interruptible

ANCHOR_LATENT_FRAMES = 8
"""How many of a window's last latent frames are decoded ahead of the others for the next window's first
picture."""

Check = Callable[[], None] | None


@dataclass(frozen=True, eq=False)
class Frames:
    """Finished frames from `index` on: uint8 [B, n, H, W, 3]."""

    index: int
    images: np.ndarray


def decode_images(vae: AutoencoderKLWan, latents: torch.Tensor, check: Check = None) -> Iterator[np.ndarray]:
    """uint8 [B, n, H, W, 3], 1 and then 4 frames at a time. Where memory runs out it goes on in tiles."""
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
    """Decodes window after window, each of which begins with the last frame of the one before.

    As a context it ends, when left, what it has under way.

    Args:
        overlap: decode all but the last window in a thread, on a CUDA device in a stream of its own.
    """

    def __init__(self, vae: AutoencoderKLWan, overlap: bool, check: Check):
        self._vae, self._overlap, self._check = vae, overlap, check
        self._thread: threading.Thread | None = None
        self._results: queue.SimpleQueue = queue.SimpleQueue()
        self._left = threading.Event()
        self._shown = 0

    def __enter__(self) -> WindowDecoder:
        return self

    def __exit__(self, *error) -> None:
        self._left.set()
        if self._thread is not None:
            self._thread.join()

    def decode(self, latents: torch.Tensor, start: int, last: bool) -> Generator[Frames, None, np.ndarray]:
        """Decode a window `[B, C, F, h, w]` that begins at frame `start`, or with `overlap` begin to.

        Returns its last picture, uint8 [B, H, W, 3]. With `overlap` this is decoded on its own, without the
        memory of what lies far before it, and is shown as it is.
        """
        yield from self.rest()
        if not self._overlap or last:
            for images in decode_images(self._vae, latents, self._check):
                yield from self._show(start, images)
                start += images.shape[1]
            return images[:, -1]
        for images in decode_images(self._vae, latents[:, :, -ANCHOR_LATENT_FRAMES:], self._check):
            anchor = images[:, -1]
        stream = torch.cuda.Stream(latents.device) if latents.is_cuda else None
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(latents.device))
        self._thread = threading.Thread(
            target=self._decode_aside, args=(latents, start, anchor, stream), name="decoder"
        )
        self._thread.start()
        return anchor

    def ready(self) -> Iterator[Frames]:
        """What has been decoded in the meantime."""
        while self._thread is not None and not self._results.empty():
            yield from self._take()

    def rest(self) -> Iterator[Frames]:
        """Everything there is still to come."""
        while self._thread is not None:
            yield from self._take()

    def _show(self, index: int, images: np.ndarray) -> Iterator[Frames]:
        fresh = images[:, max(self._shown - index, 0) :]
        if fresh.shape[1]:
            yield Frames(self._shown, fresh)
            self._shown += fresh.shape[1]

    def _take(self) -> Iterator[Frames]:
        result = self._results.get()
        if isinstance(result, tuple):
            yield from self._show(*result)
            return
        self._thread.join()
        self._thread = None
        if result is not None:
            raise result

    def _decode_aside(
        self, latents: torch.Tensor, start: int, anchor: np.ndarray, stream: torch.cuda.Stream | None
    ) -> None:
        end = start + FRAMES_PER_LATENT * (latents.shape[2] - 1)
        try:
            with torch.no_grad(), torch.cuda.stream(stream) if stream else nullcontext():
                for images in decode_images(self._vae, latents, self._check_aside):
                    if start + images.shape[1] > end:
                        images[:, -1] = anchor
                    self._results.put((start, images))
                    start += images.shape[1]
        except BaseException as error:  # raised where the results are taken
            self._results.put(error)
        else:
            self._results.put(None)

    def _check_aside(self) -> None:
        if self._left.is_set():
            raise SystemExit
        if self._check is not None:
            self._check()
