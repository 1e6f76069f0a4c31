"""What poses cost whose strokes lie beside the middle of the limbs, by the small trained model.

    python build.py bench stray [--clips 12] [--model FOLDER]

The released weights know strokes through the middle of the flesh, and so does the small model. A rig's bones
may lie elsewhere, a spine along the back; the benchmark `look` measures how far. Here drawn clips, of seeds
that no training uses, are made with their own poses; with each limb's strokes moved to one of its sides by
1, 2 and 4 % of the subject's size, the diagonal of its box in frame 0; and with bones as a rig may have them,
anywhere within the flesh (`synthesise --look bones`). The scene tells the parts. Printed is PSNR on the
subject and on all pixels. Means with 95 % intervals; differences are paired, clip by clip.

Left out: the released weights; rigs that lack strokes or have more of them.
"""

from __future__ import annotations

import dataclasses
import itertools
from functools import partial

import numpy as np

from inference_server.datasets.examples import Example
from inference_server.engines.poseanything.engine import PoseAnythingEngine
from inference_server.evaluation.metrics import pixel_measures
from inference_server.synthesis.clips import LOOKS, ClipSettings
from shared.pose import Polyline, PoseSequence
from tests.benchmarks._small_model import (
    arguments_of,
    drawn_clips,
    each,
    frames_of,
    rows_of,
    show,
    small_engine,
)

FIRST_SEED = 940_000
SHARES = (0.01, 0.02, 0.04)
"""Of the subject's size."""


def strayed(pose: PoseSequence, distance: float, sides: np.ndarray) -> PoseSequence:
    """The poses with the strokes of limb l moved by so many pixels to one side, 1 or -1 as `sides[l]`."""

    def moved(line: Polyline) -> Polyline:
        across, down = line.points[-1, :2] - line.points[0, :2]
        normal = np.array([-down, across]) / max(np.hypot(across, down), 1e-6)
        points = line.points.copy()
        points[:, :2] += sides[line.limb] * distance * normal
        return Polyline(line.limb, points)

    frames = [[moved(line) for line in pose.frame(index)] for index in range(pose.num_frames)]
    return PoseSequence.from_frames(pose.width, pose.height, pose.parts, pose.limbs, frames)


def measure(
    engine: PoseAnythingEngine, looks: tuple[Example, Example], steps: int
) -> dict[str, dict[str, float]]:
    """By way, the figures of a clip in its two looks; 0 steps are the checkpoint's."""
    clip, rigged = looks
    request = dataclasses.replace(
        clip.request,
        num_inference_steps=steps or engine.describe().default_steps,
        preview_interval=0.0,
    )
    rows, columns = np.nonzero(clip.labels[0])
    size = float(np.hypot(np.ptp(rows), np.ptp(columns)))
    sides = np.random.default_rng(0).choice([-1, 1], len(request.pose.limbs))
    ways = {"in the middle": request} | {
        f"{share:.0%} beside": dataclasses.replace(request, pose=strayed(request.pose, share * size, sides))
        for share in SHARES
    }
    ways["bones of a rig"] = dataclasses.replace(request, pose=rigged.request.pose)
    figures = {}
    for way, asked in ways.items():
        pixels = pixel_measures(frames_of(engine, asked), clip.frames, clip.labels)
        figures[way] = {"subject, dB": pixels["psnr_subject"], "all pixels, dB": pixels["psnr"]}
    return figures


def main() -> None:
    arguments = arguments_of(__doc__, clips=12).parse_args()
    looks = zip(*(drawn_clips(FIRST_SEED, ClipSettings(look=look)) for look in LOOKS))
    clips = itertools.islice(looks, arguments.clips)
    start = partial(small_engine, arguments.model)
    work = partial(measure, steps=arguments.steps)
    show(rows_of(each(clips, work, start, arguments.processes)), arguments.figures)


if __name__ == "__main__":
    main()
