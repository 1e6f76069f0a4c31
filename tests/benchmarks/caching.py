"""What the caches leave out of a sample of 50 steps, and what becomes of the frames.

Guidance is on in the first fifth of the steps. The target is the first share: at most half of the
arithmetic of the release's own sample, which has no guidance. The arithmetic is that of the full size: an
evaluation that is left out costs what the cache still computes of it.

Left out: the real weights. How many evaluations a cache saves, and the PSNR against the uncached frames, are
of a tiny model with random weights. They show that the caches work, not how well they do with the real
weights, by whose changes from step to step MagCache and first-block caching decide.
"""

from __future__ import annotations

import numpy as np
import torch

from inference_server.poseanything.models.transformer import PoseAnythingTransformer3DModel
from inference_server.poseanything.sampling.guiders import ClassifierFreePoseGuidance
from inference_server.poseanything.sampling.options import Settings
from tests.benchmarks.model import FULL, FULL_GRID, random_model, release_flops, runs
from tests.benchmarks.ptcm import flops
from tests.model.tiny_pipeline import psnr, tiny_clip, tiny_pipeline

STEPS, PART_STEPS = 50, 6
BLOCKS = FULL["num_layers"]
COMPUTED_WHEN_LEFT_OUT = {"none": 0.0, "first_block": 1 / BLOCKS, "mag": 0.0, "taylorseer": 0.0}


class Counter:
    """Evaluations since the last reset, and those of them that went through all blocks."""

    def __init__(self, transformer: PoseAnythingTransformer3DModel):
        self.all = self.whole = 0
        transformer.register_forward_pre_hook(lambda *_: self.count(all=1))
        transformer.blocks[-2].attn1.register_forward_pre_hook(lambda *_: self.count(whole=1))

    def count(self, all: int = 0, whole: int = 0) -> None:
        self.all += all
        self.whole += whole


@torch.no_grad()
def main() -> None:
    model = random_model(PoseAnythingTransformer3DModel, FULL, "meta", torch.bfloat16)
    counted = {name: flops(run) for name, run in runs(model, FULL_GRID).items()}
    plain, parts = counted["ours"], counted["ours, parts"] - counted["ours"]
    release_parts, release_pass = release_flops(FULL, plain)
    release = 5 * plain + release_pass + PART_STEPS * release_parts + (STEPS - PART_STEPS) * plain

    pipeline = tiny_pipeline()
    for parameter in pipeline.transformer.parameters():
        parameter.mul_(0.5)  # a smoother model, nearer to a trained one
    counter = Counter(pipeline.transformer)
    maps = np.zeros((9, 8, 12), np.uint8)
    maps[:, 2:6, 3:6], maps[:, 2:6, 6:9] = 1, 2
    clip, guider = tiny_clip(part_maps=maps), ClassifierFreePoseGuidance(2.0, stop=0.2)
    heading = "evaluations  whole  PFLOP  of the release's, unguided / guided   PSNR, tiny model"
    print(f"{'guidance in 10 of 50 steps, cache':34} {heading}")
    reference = None
    for cache in ("none", "first_block", "mag", "taylorseer"):
        settings = Settings(num_inference_steps=STEPS, cache=cache)
        if cache == "mag":
            pipeline.sample(clip, guider=guider, settings=settings)  # measures its ratios
        counter.all = counter.whole = 0
        made = pipeline.sample(clip, guider=guider, settings=settings)
        reference = made if reference is None else reference
        left_out = (counter.all - counter.whole) * COMPUTED_WHEN_LEFT_OUT[cache]
        total = plain * (counter.whole + left_out) + 2 * PART_STEPS * parts
        share = f"{total / release:18.1%} / {total / release / 2:5.1%}"
        print(
            f"{cache:34} {counter.all:11} {counter.whole:6} {total / 1e15:6.2f} {share}"
            f" {psnr(made, reference):14.1f}"
        )


if __name__ == "__main__":
    main()
