"""What fewer evaluations cost, by the small trained model: fewer steps, caches, a student.

    python build.py bench steps [--clips 12] [--model FOLDER]

Clips are drawn by the 2D generator from seeds that no training uses. The scene tells the parts. The ways:

- `50 steps`: plain, as the paper samples;
- `8 steps`, `4 steps`, `1 step` of the same solver, Euler; `UniPC, 20 steps`;
- `first block`, `MagCache`, `TaylorSeer`: 50 steps with a cache. Caches set in after the part-aware steps, so
  parts are on above timestep 975 alone, as in the release; `parts above 975` is that without a cache;
- `student, 4 steps`: with the LoRA of what distillation changed in the model, `loras/four_steps.safetensors`
  in its folder.

Printed are PSNR on the subject and on all pixels, the share of the pose's strokes that lie on the subject,
fine detail as a share of the truth's, PSNR against the frames of the 50 steps (of a cache against those
without it), and the processor's time as a share of that of the 50 steps. Means with 95 % intervals;
differences are paired, clip by clip.

Left out: the released weights, by whose changes from step to step the caches decide; a start from the draft,
which the model from noise was not trained for.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from inference_server.datasets.examples import Example
from inference_server.evaluation.metrics import detail, pixel_measures, pose_adherence
from inference_server.synthesis.clips import make_clip
from tests.benchmarks._small_model import (
    arguments_of,
    drawn_clips,
    each,
    frames_of,
    rows_of,
    show,
    small_engine,
)

FIRST_SEED = 960_000
PLAIN = "50 steps"
UNCACHED = "parts above 975"
FEW_PARTS = {"part_attention_threshold": 975.0}
WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    PLAIN: (50, {}),
    "8 steps": (8, {}),
    "4 steps": (4, {}),
    "1 step": (1, {}),
    "UniPC, 20 steps": (20, {"scheduler": "unipc"}),
    UNCACHED: (50, FEW_PARTS),
    "first block": (50, FEW_PARTS | {"cache": "first_block"}),
    "MagCache": (50, FEW_PARTS | {"cache": "mag"}),
    "TaylorSeer": (50, FEW_PARTS | {"cache": "taylorseer"}),
    "student, 4 steps": (4, {"loras": {"four_steps.safetensors": 1.0}}),
}
"""By name, steps and engine options."""


class Maker:
    """Makes clips in all ways; MagCache's ratios are measured on a clip before."""

    def __init__(self, model: Path):
        self.engine = small_engine(model)
        steps, options = WAYS["MagCache"]
        frames_of(self.engine, asked(make_clip(FIRST_SEED - 1), steps, options))

    def make(self, clip: Example) -> dict[str, tuple[np.ndarray, float]]:
        """By way, frames uint8 [F, H, W, 3] and seconds of the processor."""
        return {name: timed(self.engine, asked(clip, *how)) for name, how in WAYS.items()}


def asked(clip: Example, steps: int, options: dict[str, Any]):
    return dataclasses.replace(
        clip.request, num_inference_steps=steps, engine_options=options, preview_interval=0.0
    )


def timed(engine, request) -> tuple[np.ndarray, float]:
    began = time.process_time()
    return frames_of(engine, request), time.process_time() - began


def measure(maker: Maker, clip: Example) -> dict[str, dict[str, float]]:
    """By way, the figures of a clip."""
    made, figures = maker.make(clip), {}
    plain, longest = made[PLAIN]
    for name, (frames, seconds) in made.items():
        in_full = made[UNCACHED][0] if "cache" in WAYS[name][1] else plain
        pixels = pixel_measures(frames, clip.frames, clip.labels)
        figures[name] = {
            "subject, dB": pixels["psnr_subject"],
            "all pixels, dB": pixels["psnr"],
            "pose on the subject": pose_adherence(frames, clip.request, clip.labels),
            "detail, of the truth's": detail(frames, clip.frames, clip.labels),
            "against the same in full, dB": pixel_measures(frames, in_full)["psnr"],
            "time, of the 50 steps'": seconds / longest,
        }
    return figures


def main() -> None:
    arguments = arguments_of(__doc__, clips=12, steps=False).parse_args()
    clips = itertools.islice(drawn_clips(FIRST_SEED), arguments.clips)
    start = partial(Maker, arguments.model)
    show(rows_of(each(clips, measure, start, arguments.processes)), arguments.figures)


if __name__ == "__main__":
    main()
