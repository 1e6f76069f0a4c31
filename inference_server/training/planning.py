"""The memory of a card that a training run takes, counted before it is begun.

What a block keeps for its backward pass was counted by torch's hooks for saved tensors, in one block under
bfloat16 autocast whose low-rank matrices are trained (tests/training/test_planning.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ..poseanything.conditioning.latent_grid import LatentGrid
from ..poseanything.runtime.placement import MARGIN
from ..poseanything.runtime.requirements import Shape, encoding_bytes
from .settings import TrainingSettings

SAVED_BYTES_PER_DIM = 62
"""Of a token and each of its `dim` features, by a block with parts."""
SAVED_BYTES_PER_FFN = 4
"""And of each of its `ffn_dim` features."""
BACKWARD_SHARE = 0.6
"""Of what is saved, the gradients that are alive beside it."""
TRAINED_BYTES = 4 + 4 + 8 + 4
"""Of a trained value: itself, its gradient, AdamW's two moments and the average, all float32."""


@dataclass(frozen=True)
class TrainingPlan:
    """Bytes on a card, by what takes them; see `plan_training`."""

    parts: Mapping[str, int]

    @property
    def peak_bytes(self) -> int:
        return round(sum(self.parts.values()) * (1 + MARGIN))

    def __str__(self) -> str:
        lines = [f"  {name}: {value / 2**30:.2f} GiB" for name, value in self.parts.items()]
        return "\n".join([*lines, f"  in all, with a margin: {self.peak_bytes / 2**30:.1f} GiB"])


def plan_training(
    transformer: nn.Module, vae: nn.Module, settings: TrainingSettings, shape: Shape
) -> TrainingPlan:
    """What a run takes of one card, the text encoder apart, which is let go of before.

    Args:
        transformer: as it is trained (`trainer.freeze`); it may lie on the meta device.
        vae: codes the poses on the way.
        shape: of the largest examples; their number is the settings'.
    """
    config, grid = transformer.config, LatentGrid.of(vae.config, transformer.config)
    rows, columns = grid.tokens(shape.height, shape.width)
    tokens = grid.latent_frames(shape.num_frames) * rows * columns * settings.batch_size
    dim, blocks = config.num_attention_heads * config.attention_head_dim, config.num_layers
    trained = sum(p.numel() for p in transformer.parameters() if p.requires_grad)
    frozen = sum(p.numel() * p.element_size() for p in transformer.parameters() if not p.requires_grad)
    half = settings.mixed_precision != "no"
    saved = tokens * (SAVED_BYTES_PER_DIM * dim + SAVED_BYTES_PER_FFN * config.ffn_dim)
    saved = saved if half else 2 * saved
    itemsize = 2 if half else 4
    kept = tokens * dim * itemsize  # a block's input, from which its forward is done again
    alive = blocks * kept + saved if settings.gradient_checkpointing else blocks * saved
    pictures = Shape(shape.width, shape.height, shape.num_frames)
    return TrainingPlan(
        {
            "weights that are frozen": frozen,
            "weights that are trained, gradients, optimizer, average": trained * TRAINED_BYTES,
            "half-precision copies of these": trained * 2 * half,
            "activations": round(alive + BACKWARD_SHARE * saved),
            "VAE": sum(p.numel() for p in vae.parameters()) * itemsize,
            "coding poses": encoding_bytes(pictures, itemsize),
        }
    )
