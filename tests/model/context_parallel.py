"""One rank of the context-parallel test: a sequence split over the ranks must give what it gives whole.

Run by torchrun; exits with an error where the two differ.
"""

from __future__ import annotations

from unittest import mock

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig

from inference_server.poseanything.models.part_tokens import sequence_share
from inference_server.poseanything.models.transformer import (
    FirstFrameAttention,
    PoseAnythingTransformer3DModel,
)
from tests.model.tiny_transformer import tiny_inputs, tiny_parts, tiny_transformer


def check_unequal_pieces(transformer: PoseAnythingTransformer3DModel) -> None:
    """Of part-aware attention alone: gloo gathers no unequal pieces, so Ulysses Anything doesn't run on it
    whole."""
    parts = tiny_parts(frames=3, batch_size=2)
    hidden_states = torch.randn(2, parts.sequence_length, 24, generator=torch.Generator().manual_seed(3))
    share = sequence_share(parts.sequence_length, dist.group.WORLD)
    attend = transformer.blocks[0].attend_parts_
    piece = attend(hidden_states[:, share].clone(), parts.shard(dist.group.WORLD))
    torch.testing.assert_close(piece, attend(hidden_states, parts)[:, share], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def main() -> None:
    dist.init_process_group("gloo")
    transformer = tiny_transformer()
    check_unequal_pieces(transformer)

    inputs = tiny_inputs(frames=4, batch_size=2) | {"parts": tiny_parts(frames=4, batch_size=2)}

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        recorder = FirstFrameAttention(block=1, rows=torch.tensor([3, 1, 34]))
        return transformer(**inputs, attention_recorder=recorder).sample, recorder.weights

    whole = run()
    # Without an accelerator diffusers counts none, and divides the ranks by their number.
    with mock.patch("torch.accelerator.device_count", lambda: 1):
        transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=dist.get_world_size()))
    for split, expected in zip(run(), whole):
        torch.testing.assert_close(split, expected, rtol=1e-5, atol=1e-5)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
