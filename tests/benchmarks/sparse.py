"""Few poses, by the small trained model (the paper's Table 5).

    python build.py bench sparse [--clips 48] [--model FOLDER]

Clips of 17 frames are drawn by the 2D generator from seeds that no training uses, at two paces: the one that
most clips have, and a quarter of it, at which ten frames go as far as ten frames of the release's own deer:
the strokes of the pose are 3.5 % of the subject's size from those ten frames later. In the paper a tenth of
the poses are one in ten frames. No time is left out after frame 0.

Poses are left out but in every fourth, eighth and sixteenth frame; beside it poses are drawn in all frames
where straight lines between those have them, which shows how much they say. Printed are PSNR on the subject
and on all pixels, and how much better all poses are. Means with 95 % intervals; differences are paired, clip
by clip.

Left out: the released weights.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from inference_server.evaluation.pixels import psnr
from inference_server.poseanything.models.streaming_vae import decode_frames
from inference_server.synthesis.clips import ClipSettings, make_clip
from inference_server.synthesis.creatures import MotionSettings
from inference_server.synthesis.pool import Pool
from inference_server.training.examples import Example
from inference_server.training.mini_figures import poses_every
from inference_server.training.objective import sample
from inference_server.training.pool_batches import PoolBatches
from inference_server.training.settings import TrainingSettings
from tests.benchmarks._small_model import (
    Rows,
    arguments_of,
    each,
    leaves_no_time_out,
    show,
    shows_its_subject,
    small_pipeline,
)

FIRST_SEED = 950_000
PACES = (1.0, 0.25)
EVERY = (4, 8, 16)
"""Frames from one pose to the next."""
BATCH = 16
SETTINGS = ClipSettings(drafts=False)


def clips(pace: float, count: int) -> Iterator[Example]:
    motions = MotionSettings(slowest=pace, fastest=pace)
    drawn = (make_clip(seed, SETTINGS, motions) for seed in itertools.count(FIRST_SEED))
    return itertools.islice(filter(leaves_no_time_out, filter(shows_its_subject, drawn)), count)


def with_straight_lines(clip: Example, kept: np.ndarray) -> Example:
    """The clip with the poses between those that are kept where straight lines have them."""
    pose, (known,) = clip.request.pose, kept.nonzero()
    before = pose.points.reshape(len(kept), -1)
    between = [np.interp(np.arange(len(kept)), known, column[known]) for column in before.T]
    points = np.stack(between, 1).reshape(pose.points.shape).astype(np.float32)
    request = dataclasses.replace(clip.request, pose=dataclasses.replace(pose, points=points))
    return dataclasses.replace(clip, request=request)


def measure_pace(model: Path, steps: int, count: int, pace: float) -> Rows:
    """By way, the figures of each clip."""
    drawn = list(clips(pace, count))
    ways = {"all poses": (drawn, None)}
    for every in EVERY:
        kept = poses_every(SETTINGS.num_frames, every)
        ways[f"one in {every}"] = drawn, kept
        ways[f"one in {every}, straight lines"] = [with_straight_lines(clip, kept) for clip in drawn], None
    pipeline, settings = small_pipeline(model, steps)
    return {
        name: measure(pipeline, settings.num_inference_steps, asked, kept)
        for name, (asked, kept) in ways.items()
    }


@torch.no_grad()
def measure(pipeline, steps: int, asked: list[Example], kept: np.ndarray | None) -> list[dict[str, float]]:
    transformer, device, figures = pipeline.transformer, pipeline.device, []
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool.create(folder, len(asked), SETTINGS)
        for row, clip in enumerate(asked):
            pool.write(row, clip)
        batches = PoolBatches(
            pool,
            pipeline.vae,
            TrainingSettings(),
            transformer.config.text_dim,
            device,
            drafts=False,
            held_out=len(asked),
        )
        batches.take_in()
        for start in range(0, len(asked), BATCH):
            batch = batches.held_out_batch(start, BATCH, parts="drawn", kept=kept)
            generator = torch.Generator(device).manual_seed(start)
            latents = sample(transformer, batch, steps, generator)
            video = torch.cat(list(decode_frames(pipeline.vae, latents)), 2)
            made = ((video.movedim(1, -1) + 1) * 127.5).round().clamp(0, 255)
            truth, subject, _ = batches.held_out_frames(start, BATCH)
            each_clip = zip(psnr(made, truth, subject).tolist(), psnr(made, truth).tolist())
            figures += [
                {"subject, dB": on_subject, "all pixels, dB": on_all} for on_subject, on_all in each_clip
            ]
    return figures


def work(start: tuple[Path, int, int], pace: float) -> Rows:
    return measure_pace(*start, pace)


def main() -> None:
    arguments = arguments_of(__doc__, clips=48).parse_args()
    given = arguments.model, arguments.steps, arguments.clips
    for pace, rows in zip(PACES, each(PACES, work, partial(tuple, given), arguments.processes)):
        print(f"\nat {pace:g} of the usual pace\n")
        file = arguments.figures
        show(rows, file and file.with_stem(f"{file.stem}-{pace:g}"))


if __name__ == "__main__":
    main()
