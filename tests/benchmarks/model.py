"""The model of the full 5B shape at 832 x 480 x 81 with random weights: ours and diffusers' plain Wan side by
side.

First the arithmetic of a whole sample, counted on torch's meta device at full size, against the release's.
Then, with a CUDA card, seconds a step and peak memory, eager and compiled; without one, times on this CPU at
a reduced size.

Left out: the text encoder, the VAE and the time to load them. Without a CUDA card it measures arithmetic and
a reduced size on the processor, and says nothing about seconds a clip; for those see the benchmark `card`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from accelerate import init_empty_weights
from accelerate.utils import set_module_tensor_to_device
from diffusers import WanTransformer3DModel

from inference_server.poseanything.models.transformer import (
    FirstFrameAttention,
    PartTokens,
    PoseAnythingTransformer3DModel,
)
from inference_server.poseanything.runtime.acceleration import compile_blocks
from inference_server.poseanything.sampling.part_matching import MATCHING_BLOCK
from tests.benchmarks.ptcm import flops, part_masks
from tests.model.masked_part_attention import MaskedPartProcessor, MaskedParts

FULL = {"num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "text_dim": 4096}
REDUCED = {"num_attention_heads": 2, "ffn_dim": 1024, "num_layers": 2, "text_dim": 256}
PLAIN = {"patch_size": (1, 2, 2), "in_channels": 48, "out_channels": 48, "eps": 1e-6}
FULL_GRID, REDUCED_GRID = (21, 15, 26), (4, 8, 10)  # latent frames, tokens down and across
CHANNELS, TEXT_TOKENS = 48, 512
STEPS, PART_STEPS, RELEASE_MATCHING_STEPS = 50, 6, 5
WARM_UP, ROUNDS = 2, 7

Model = PoseAnythingTransformer3DModel | WanTransformer3DModel
Run = Callable[[], torch.Tensor]


def random_model(kind: type[Model], shape: dict[str, int], device: str, dtype: torch.dtype) -> Model:
    """A model of random weights, those in float32 that diffusers keeps so."""
    config = shape if kind is PoseAnythingTransformer3DModel else shape | PLAIN
    with init_empty_weights():
        model = kind(**config).eval()
    for name, parameter in list(model.named_parameters()):
        kept = any(part in model._keep_in_fp32_modules for part in name.split("."))
        value = torch.empty(parameter.shape, dtype=torch.float32 if kept else dtype, device=device)
        set_module_tensor_to_device(
            model, name, device, value if device == "meta" else value.normal_(std=0.02)
        )
    return model.to(device)


def runs(model: Model, grid: tuple[int, int, int]) -> dict[str, Run]:
    """A model's evaluations, by name."""
    frames, height, width = grid
    device, dtype = model.device, model.dtype
    video, pose = torch.randn(2, 1, CHANNELS, frames, 2 * height, 2 * width, device=device, dtype=dtype)
    text = torch.randn(1, TEXT_TOKENS, model.config.text_dim, device=device, dtype=dtype)
    timestep = torch.full((1, frames), 980.0, device=device, dtype=dtype)
    timestep[:, 0] = 0
    if not isinstance(model, PoseAnythingTransformer3DModel):
        timestep = timestep.repeat_interleave(height * width, dim=1)  # as diffusers' pipeline has it
        return {"plain Wan": lambda: model(video, timestep, text, return_dict=False)[0]}
    masks = part_masks(*grid)
    parts = PartTokens.from_masks(masks[0], masks[1:]).to(device)
    rows = masks[0].any(0).flatten().nonzero().squeeze(1)
    block = min(MATCHING_BLOCK, model.config.num_layers - 1)

    def call(**options) -> torch.Tensor:
        return model(video, timestep, text, pose, return_dict=False, **options)[0]

    return {
        "ours": call,
        "ours, parts": lambda: call(parts=parts),
        "ours, parts and matching": lambda: call(
            parts=parts, attention_recorder=FirstFrameAttention(block, rows)
        ),
    }


def release_flops(shape: dict[str, int], plain: float) -> tuple[float, float]:
    """FLOP of one evaluation with the release's part attention, and of its matching pass through block 27
    twice."""
    with torch.device("meta"):
        model = PoseAnythingTransformer3DModel(**shape)
        for block in model.blocks:
            block.part_attn.set_processor(MaskedPartProcessor())
        frames, height, width = FULL_GRID
        hidden_states = torch.randn(1, frames * height * width, shape["num_attention_heads"] * 128)
        text = torch.randn(1, TEXT_TOKENS, hidden_states.shape[-1])
        angles = torch.rand(1, hidden_states.shape[1], 1, 128)
        inputs = (hidden_states, text, torch.randn(1, frames, 6, hidden_states.shape[-1]), (angles, angles))
    masks = part_masks(*FULL_GRID)
    masked = MaskedParts(masks[0][None].to("meta"), masks[1:][None].to("meta"))
    block = model.blocks[0]
    extra = flops(lambda: block(*inputs, parts=masked)) - flops(lambda: block(*inputs))
    one_block = flops(lambda: block(*inputs))
    return plain + len(model.blocks) * extra, plain - (len(model.blocks) - MATCHING_BLOCK - 2) * one_block


@torch.no_grad()
def count_arithmetic() -> None:
    """A whole sample's arithmetic at full size, in evaluations and against the release's."""
    kinds = WanTransformer3DModel, PoseAnythingTransformer3DModel
    made = [runs(random_model(kind, FULL, "meta", torch.bfloat16), FULL_GRID) for kind in kinds]
    counted = {name: flops(run) for each in made for name, run in each.items()}
    plain, with_parts, matching = counted["ours"], counted["ours, parts"], counted["ours, parts and matching"]
    recording = matching - with_parts
    release_with_parts, release_pass = release_flops(FULL, plain)
    release = (
        (RELEASE_MATCHING_STEPS * plain + release_pass)
        + PART_STEPS * release_with_parts
        + (STEPS - PART_STEPS) * plain
    )
    rest = (STEPS - PART_STEPS) * plain
    samples = {
        "the release: 5 steps and a pass thrown away, masks": (56, release),
        "ours, parts known from the scene": (50, PART_STEPS * with_parts + rest),
        "ours, parts matched while denoising": (50, plain + 5 * with_parts + 5 * recording + rest),
    }
    print(
        "one evaluation at full size, TFLOP:",
        *(f"{name} {value / 1e12:.1f}" for name, value in counted.items()),
        sep="  ",
    )
    print(f"{'a whole sample, 50 steps, no guidance':54} evaluations    TFLOP  of the release's")
    for name, (evaluations, total) in samples.items():
        print(f"{name:54} {evaluations:11} {total / 1e12:8.0f} {total / release:14.1%}")


@torch.no_grad()
def measure(made: dict[str, Run], on_card: bool) -> dict[str, tuple[float, float]]:
    """Median seconds of each, taking turns so that whatever else the machine does falls on all of them, and
    peak GiB."""
    times, peaks = {name: [] for name in made}, dict.fromkeys(made, 0.0)
    for _ in range(WARM_UP + ROUNDS):
        for name, run in made.items():
            if on_card:
                torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            run()
            if on_card:
                torch.cuda.synchronize()
                peaks[name] = torch.cuda.max_memory_allocated() / 2**30
            times[name].append(time.perf_counter() - started)
    return {name: (statistics.median(taken[WARM_UP:]), peaks[name]) for name, taken in times.items()}


def compare(shape: dict[str, int], grid: tuple[int, int, int], device: str, dtype: torch.dtype) -> None:
    """Times, and on a card the peak memory, of every evaluation, eager and compiled."""
    on_card = device == "cuda"
    print(f"{'':10} {'':26} seconds a step  of plain Wan's" + ("  peak GiB" if on_card else ""))
    for mode in ("eager", "compiled"):
        made, measured = {}, {}
        for kind in (WanTransformer3DModel, PoseAnythingTransformer3DModel):
            model = random_model(kind, shape, device, dtype)
            if mode == "compiled":
                compile_blocks(
                    model
                ) if kind is PoseAnythingTransformer3DModel else model.compile_repeated_blocks()
            made |= runs(model, grid)
            if on_card:  # each model has the card to itself
                measured |= measure(made, on_card)
                made.clear()
                del model
                torch.cuda.empty_cache()
        measured |= measure(made, on_card)
        base, _ = measured["plain Wan"]
        for name, (taken, peak) in measured.items():
            print(
                f"{mode:10} {name:26} {taken:14.3f} {taken / base:15.2f}"
                + (f"{peak:10.1f}" if on_card else "")
            )


def main() -> None:
    count_arithmetic()
    if torch.cuda.is_available():
        print(f"\n832 x 480 x 81 on {torch.cuda.get_device_name()}, bfloat16")
        compare(FULL, FULL_GRID, "cuda", torch.bfloat16)
    else:
        print(f"\n{REDUCED['num_layers']} blocks 256 wide, {REDUCED_GRID} tokens, on this CPU, float32")
        compare(REDUCED, REDUCED_GRID, "cpu", torch.float32)
        print("With a CUDA card the same command measures the full size: python build.py bench model")


if __name__ == "__main__":
    main()
