"""What part-aware attention adds to a transformer block: arithmetic, time and memory, side by side in one
run.

At 832x480x81 a block sees 21 x 15 x 26 tokens; five parts cover a third of them together. The block runs
without part-aware attention, with it, and with the release's way of computing it, masks over all tokens.
Arithmetic is counted at the model's real width, time and memory are measured on this CPU at a width of 512.

Left out: everything around the block. The share of tokens that parts cover decides; here it is a third.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from inference_server.poseanything.models.transformer import PartTokens, PoseAnythingTransformerBlock
from tests.model.masked_part_attention import MaskedPartProcessor, MaskedParts

FRAMES, HEIGHT, WIDTH = 21, 15, 26
PARTS = 5
TEXT_TOKENS = 512
HEAD_DIM = 128
ROUNDS = 15

Run = Callable[[], torch.Tensor]


def part_masks(frames: int, height: int, width: int) -> torch.Tensor:
    """bool [F, P, h, w]: five parts side by side over the middle third of the picture."""
    masks = torch.zeros(frames, PARTS, height, width, dtype=torch.bool)
    for part, columns in enumerate(torch.arange(width).tensor_split(PARTS)):
        masks[:, part, height // 3 : 2 * height // 3, columns] = True
    return masks


@torch.no_grad()
def runs(dim: int, ffn_dim: int, device: str) -> dict[str, Run]:
    """One block's forward, by name of how it computes part-aware attention."""
    with torch.device(device):
        block = PoseAnythingTransformerBlock(dim, ffn_dim, dim // HEAD_DIM)
        released = PoseAnythingTransformerBlock(dim, ffn_dim, dim // HEAD_DIM)
        released.part_attn.set_processor(MaskedPartProcessor())
        released.load_state_dict(block.state_dict())
        length = FRAMES * HEIGHT * WIDTH
        hidden_states, text = torch.randn(1, length, dim), torch.randn(1, TEXT_TOKENS, dim)
        temb = torch.randn(1, FRAMES, 6, dim)
        angles = torch.rand(1, length, 1, HEAD_DIM)
        inputs = (hidden_states, text, temb, (angles.cos(), angles.sin()))
    masks = part_masks(FRAMES, HEIGHT, WIDTH)
    tokens = PartTokens.from_masks(masks[0], masks[1:]).to(device)
    masked = MaskedParts(masks[:1].to(device), masks[None, 1:].to(device))
    return {
        "without": lambda: block(*inputs),
        "ours": lambda: block(*inputs, parts=tokens),
        "as released": lambda: released(*inputs, parts=masked),
    }


def flops(run: Run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def peak_memory(run: Run) -> int:
    """The most bytes that were allocated at once on the CPU beyond what was there before."""
    with profile(profile_memory=True) as profiler:
        run()
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in events if event.name() == "[memory]"))


def seconds(runs: dict[str, Run]) -> dict[str, list[float]]:
    """Times by round. The runs take turns, so that whatever else the machine does falls on all of them."""
    taken = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
    return taken


@torch.no_grad()
def main() -> None:
    full, small = runs(3072, 14336, "meta"), runs(512, 2048, "cpu")
    figures = {
        "arithmetic at width 3072, TFLOP": {name: [flops(run) / 1e12] for name, run in full.items()},
        "peak memory at width 512, MiB": {name: [peak_memory(run) / 2**20] for name, run in small.items()},
        "CPU time at width 512, s": seconds(small),
    }
    grid = f"{FRAMES}x{HEIGHT}x{WIDTH}"
    print(f"One block at {grid} tokens, {PARTS} parts over a third of them; medians, ratios by round")
    print(f"{'':33}" + "".join(f"{name:>20}" for name in small))
    for figure, measured in figures.items():
        ratios = {
            name: statistics.median(value / base for value, base in zip(values, measured["without"]))
            for name, values in measured.items()
        }
        cells = (
            f"{statistics.median(values):9.3f} ({ratios[name]:6.1%})" for name, values in measured.items()
        )
        print(f"{figure:33}" + "".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    main()
