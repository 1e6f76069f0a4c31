"""Few poses, by the small trained model (the paper's Table 5).

    python build.py bench sparse [--clips 48] [--model FOLDER]

Clips of 17 frames are drawn by the 2D generator from seeds that no training uses, at two paces: the one that
most clips have, and a quarter of it, at which ten frames go as far as ten frames of the release's own deer:
the strokes of the pose are 3.5 % of the subject's size from those ten frames later. In the paper a tenth of
the poses are one in ten frames. No time is left out after frame 0.

The engine is asked as the panel asks it, for poses in all frames and in every fourth, eighth and sixteenth
alone, and with either option for what lies between: nothing, or interpolated poses. It finds the parts in the
poses. Printed are PSNR on the subject and on all pixels, and how much better all poses are. Means with 95 %
intervals; differences are paired, clip by clip.

Left out: the released weights.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from functools import partial

import torch

from inference_server.datasets.examples import Example
from inference_server.engines.poseanything.engine import PoseAnythingEngine
from inference_server.evaluation.pixels import psnr
from inference_server.synthesis.clips import ClipSettings
from inference_server.synthesis.creatures import MotionSettings
from shared.messages import GenerationRequest
from tests.benchmarks._small_model import (
    arguments_of,
    drawn_clips,
    each,
    frames_of,
    leaves_no_time_out,
    rows_of,
    show,
    small_engine,
)

FIRST_SEED = 950_000
PACES = (1.0, 0.25)
EVERY = (4, 8, 16)
"""Frames from one pose to the next."""
BETWEEN = ("empty", "interpolated")


def clips(pace: float, count: int) -> Iterator[Example]:
    motions = MotionSettings(slowest=pace, fastest=pace)
    drawn = drawn_clips(FIRST_SEED, ClipSettings(), motions)
    return itertools.islice(filter(leaves_no_time_out, drawn), count)


def requests(clip: Example, steps: int) -> dict[str, GenerationRequest]:
    """What the engine is asked for, by way."""
    asked = dataclasses.replace(
        clip.request, num_inference_steps=steps, engine_options={"parts": "images"}, preview_interval=0.0
    )
    ways = {"all poses": asked}
    for every, between in itertools.product(EVERY, BETWEEN):
        ways[f"one in {every}, {between}"] = dataclasses.replace(
            asked,
            pose_frames=tuple(range(0, asked.num_frames, every)),
            engine_options=asked.engine_options | {"between_poses": between},
        )
    return ways


def measure(engine: PoseAnythingEngine, clip: Example, steps: int) -> dict[str, dict[str, float]]:
    """By way, the figures of a clip; 0 steps are the checkpoint's."""
    steps = steps or engine.describe().default_steps
    truth, subject = torch.from_numpy(clip.frames)[None].float(), torch.from_numpy(clip.labels > 0)[None]
    figures = {}
    for way, asked in requests(clip, steps).items():
        made = torch.from_numpy(frames_of(engine, asked))[None].float()
        figures[way] = {
            "subject, dB": psnr(made, truth, subject).item(),
            "all pixels, dB": psnr(made, truth).item(),
        }
    return figures


def main() -> None:
    arguments = arguments_of(__doc__, clips=48).parse_args()
    start = partial(small_engine, arguments.model)
    work = partial(measure, steps=arguments.steps)
    for pace in PACES:
        rows = rows_of(each(clips(pace, arguments.clips), work, start, arguments.processes))
        print(f"\nat {pace:g} of the usual pace\n")
        file = arguments.figures
        show(rows, file and file.with_stem(f"{file.stem}-{pace:g}"))


if __name__ == "__main__":
    main()
