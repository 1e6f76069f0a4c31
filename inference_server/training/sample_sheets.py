"""Pictures of what a model makes while it is trained, for TensorBoard."""

from __future__ import annotations

import numpy as np
import torch

from ..poseanything.models.streaming_vae import decode_frames
from .objective import sample, with_matched_parts
from .trainer import Batches, Trainer

SHOWN = 4
"""Examples at most, and frames of each."""


class SampleSheets:
    """Called with the trainer after each checkpoint, logs what the averaged weights make of the first batch:
    of each example frames of the truth, below them the poses, below them what was made.

    Args:
        batches: those of the training.
        vae: that coded them.
    """

    def __init__(self, batches: Batches, vae):
        self.batches, self.vae = batches, vae

    @torch.no_grad()
    def __call__(self, trainer: Trainer) -> None:
        model, accelerator = trainer.model, trainer.accelerator
        batch = self.batches.batch(0, min(SHOWN, trainer.batch_size))
        generator = torch.Generator(accelerator.device).manual_seed(0)
        distilled = model.config.distilled_timesteps is not None
        model.eval()
        with trainer.averaged(), accelerator.autocast():
            if batch.unmatched is not None:
                batch = with_matched_parts(model, batch, generator)
            made = sample(model, batch, model.config.num_inference_steps, generator, renoise=distilled)
        model.train()
        sheets = np.concatenate([self._pictures(latents) for latents in (batch.clean, batch.pose, made)], 1)
        accelerator.get_tracker("tensorboard").log_images(
            {"samples": sheets}, step=trainer.step, dataformats="NHWC"
        )

    def _pictures(self, latents: torch.Tensor) -> np.ndarray:
        """uint8 `[B, H, SHOWN W, 3]`: some frames of each clip beside one another."""
        video = torch.cat(list(decode_frames(self.vae, latents.to(self.vae.dtype))), 2).float()
        chosen = np.linspace(0, video.shape[2] - 1, SHOWN).astype(int)
        images = ((video[:, :, chosen] + 1) * 127.5).round().clamp(0, 255).byte()
        return images.permute(0, 3, 2, 4, 1).flatten(2, 3).cpu().numpy()
