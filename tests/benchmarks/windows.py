"""Long clips by the small trained model, window by window, beside windows that go on from one picture.

    python build.py bench windows [--clips 12] [--frames 65] [--model FOLDER] [--pictures FOLDER]

Clips are drawn by the 2D generator from seeds that no training uses; their truth is known. The scene tells
the parts. The ways:

- `ours`: latents are carried over and blended, and the user's picture is in every window;
- `one frame`: each window by itself, from the last frame of the one before, which is encoded anew;
- `all held`, of a checkpoint that was trained to go on from clean frames: as `ours`, but all of the latents
  that are shared are held, and none are blended.

65 frames are four windows of `one frame` and seven of `ours`, which overlap. Printed are PSNR of the step
from one frame to the next against the truth's step, at the seams of either way; PSNR by quarter of the clip;
and by quarter, how much farther parts are from what they look like in the first frame than in the truth, by
their mean colours (in CIE Lab) and their textures (0 to 1): less is better. Means with 95 % intervals;
differences are paired, clip by clip.

Left out: the released weights, whose windows are longer (81 frames, of which 17 are shared), and Wan's VAE,
whose decoder remembers earlier frames as the small model's does not.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from inference_server.datasets.examples import Example
from inference_server.evaluation.parts import QUARTERS, Colour, Texture, drift_by_quarter, part_drifts
from inference_server.evaluation.pixels import psnr
from inference_server.poseanything.conditioning.conditions import Conditions
from inference_server.poseanything.conditioning.windows import plan_windows
from inference_server.poseanything.sampling.pipeline import WINDOW_OVERLAP
from inference_server.synthesis.clips import ClipSettings
from tests.benchmarks._small_model import (
    arguments_of,
    draw,
    drawn_clips,
    each,
    leaves_no_time_out,
    show,
    small_pipeline,
)
from tests.training.mini_clips import conditions_of

FIRST_SEED = 910_000


class Maker:
    """Makes long clips by the small model, in either way."""

    def __init__(self, model: Path, steps: int):
        self.pipeline, self.settings = small_pipeline(model, steps)
        self.at_once = self.pipeline.transformer.config.sample_frames

    @property
    def ways(self) -> dict[str, Callable[[Conditions], np.ndarray]]:
        """From conditions to frames, uint8 `[F, H, W, 3]`."""
        ways = {"ours": self.ours, "one frame": self.one_frame}
        trained = self.pipeline.transformer.config.held_latents
        return ways | ({"all held": self.all_held} if trained else {})

    def all_held(self, conditions: Conditions) -> np.ndarray:
        planned = partial(plan_windows, blended=0)
        with mock.patch("inference_server.poseanything.sampling.pipeline.plan_windows", planned):
            return self.ours(conditions)

    def ours(self, conditions: Conditions) -> np.ndarray:
        return self.pipeline.sample(conditions, settings=self.settings)[0]

    def one_frame(self, conditions: Conditions) -> np.ndarray:
        made = conditions.first_frame[None]
        for seed, begin in enumerate(range(0, conditions.num_frames - 1, self.at_once - 1)):
            frames = slice(begin, begin + self.at_once)
            window = dataclasses.replace(
                conditions,
                first_frame=made[-1],
                pose_images=conditions.pose_images[frames],
                pose_frames=None,
                part_maps=conditions.part_maps[frames],
                first_part_map=None if begin else conditions.first_part_map,
                subject_mask=None,
                camera_images=None,
            )
            part = self.pipeline.sample(window, seeds=[seed], settings=self.settings)[0]
            made = np.concatenate([made, part[1:]])
        return made

    def seams(self, num_frames: int) -> dict[str, list[int]]:
        """By way, the frames before which another window begins to count, or counts alone."""
        grid = self.pipeline.grid
        windows = plan_windows(
            grid.latent_frames(num_frames),
            grid.latent_frames(self.at_once),
            WINDOW_OVERLAP // grid.frames_per_latent,
        )
        edges = {window.final + place for window in windows[1:] for place in range(window.blended + 1)}
        return {
            "ours": sorted(grid.num_frames(edge) for edge in edges),
            "one frame": list(range(self.at_once, num_frames, self.at_once - 1)),
        }


def films(count: int, num_frames: int) -> Iterator[Example]:
    """Drawn clips that show their subject in all frames, and in which no time is left out."""
    drawn = drawn_clips(FIRST_SEED, ClipSettings(num_frames=num_frames))
    return itertools.islice(filter(leaves_no_time_out, drawn), count)


def measure(frames: np.ndarray, clip: Example, seams: dict[str, list[int]]) -> dict[str, float]:
    """All figures of a clip; see above."""
    truth, labels, figures = clip.frames, clip.labels, {}
    both, subject = np.stack([frames, truth]).astype(np.float32), labels > 0
    steps, moving = np.diff(both, axis=1), subject[1:] | subject[:-1]
    for name, where in seams.items():
        index = np.array(where) - 1
        for region, mask in (("subject", moving), ("all", np.ones_like(moving))):
            figures[f"step at the seams of `{name}`, {region}"] = decibels(*steps[:, index], mask[index])
    quarters = [part + 1 for part in np.array_split(np.arange(len(frames) - 1), QUARTERS)]
    for number, quarter in enumerate(quarters, 1):
        figures[f"quarter {number}, subject"] = decibels(*both[:, quarter], subject[quarter])
    made = np.concatenate([truth[:1], frames[1:]])
    for name, look in (("colour", Colour()), ("texture", Texture())):
        excess = part_drifts(made, labels, look) - part_drifts(truth, labels, look)
        for number, drift in enumerate(drift_by_quarter(excess), 1):
            figures[f"drift of {name}, quarter {number}"] = drift
    return figures


def decibels(values: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """PSNR of `[F, H, W, 3]` over a mask `[F, H, W]`."""
    padded = (torch.from_numpy(np.concatenate([of[:1], of])[None]) for of in (values, truth, mask))
    return float(psnr(*padded))


def make_and_measure(maker: Maker, clip: Example) -> tuple[Example, dict[str, np.ndarray], dict[str, dict]]:
    """The clip, and by way its frames and its figures."""
    seams, conditions = maker.seams(len(clip.frames)), conditions_of(clip, "scene")
    made = {name: make(conditions) for name, make in maker.ways.items()}
    return clip, made, {name: measure(frames, clip, seams) for name, frames in made.items()}


def main() -> None:
    parser = arguments_of(__doc__, clips=12)
    parser.add_argument("--frames", type=int, default=65, help="1 + 4 n")
    parser.add_argument("--pictures", type=Path, help="folder for the truth and what is made, side by side")
    arguments = parser.parse_args()
    start, rows = partial(Maker, arguments.model, arguments.steps), defaultdict(list)
    clips = films(arguments.clips, arguments.frames)
    for clip, made, figures in each(clips, make_and_measure, start, arguments.processes):
        for name, of in figures.items():
            rows[name].append(of)
        if arguments.pictures:
            draw(arguments.pictures / f"{clip.request.job}.webp", [clip.frames, *made.values()])
    show(rows, arguments.figures)


if __name__ == "__main__":
    main()
