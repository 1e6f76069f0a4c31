"""A transformer small enough for any machine, with random weights, and inputs of its size."""

from __future__ import annotations

from typing import Any

import torch

from inference_server.poseanything.models.transformer import PartTokens, PoseAnythingTransformer3DModel

CHANNELS, HEIGHT, WIDTH = 4, 10, 14  # 35 tokens a frame
GRID = (HEIGHT // 2, WIDTH // 2)
CONFIG = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 2 * CHANNELS,
    "out_channels": CHANNELS,
    "text_dim": 16,
    "freq_dim": 32,
    "ffn_dim": 48,
    "num_layers": 3,
}


def tiny_transformer(**config: Any) -> PoseAnythingTransformer3DModel:
    """All its parameters random, those included that a new model starts at zero or one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = PoseAnythingTransformer3DModel(**CONFIG | config).eval()
        for parameter in transformer.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return transformer


def tiny_inputs(frames: int = 3, batch_size: int = 1) -> dict[str, torch.Tensor]:
    """A forward's tensors; the clean first frame has timestep 0."""
    generator = torch.Generator().manual_seed(1)
    video, pose = torch.randn(2, batch_size, CHANNELS, frames, HEIGHT, WIDTH, generator=generator)
    timestep = torch.full((batch_size, frames), 700.0)
    timestep[:, 0] = 0
    text = torch.randn(batch_size, 7, CONFIG["text_dim"], generator=generator)
    return {
        "hidden_states": video,
        "timestep": timestep,
        "encoder_hidden_states": text,
        "pose_hidden_states": pose,
    }


def tiny_parts(num_parts: int = 3, frames: int = 3, batch_size: int = 1) -> PartTokens:
    """Parts of random, overlapping tokens."""
    masks = torch.rand(frames, num_parts, *GRID, generator=torch.Generator().manual_seed(2)) < 0.3
    return PartTokens.from_masks(masks[0], masks[1:], batch_size)
