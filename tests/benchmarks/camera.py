"""Camera moves that are asked for beside the subject's own poses, by the small trained model (section 5.4).

    python build.py bench camera [--clips 16] [--model FOLDER] [--pictures FOLDER]

Clips are drawn by the 2D generator with a still camera, from seeds that no training uses. Each is asked for
with its own poses and one of four moves, by turns: pans to the left and right, tilts up and down, over a
fifth of the picture. The ways:

- `none`: poses alone;
- `one branch`: the poses and the rectangle that moves with the background in one picture;
- `decoupled`: the poses in the positive branch, the rectangle that moves against the camera in the negative
  one, at strength 2 (Eq. 10);
- `added`: three branches (Eq. 13), but the rectangle moves with the background, as in training, and what it
  changes is added to the prediction without a pose, three times, not taken away.

Printed are the share of clips whose background moves as asked, within 45 degrees (by chance a quarter); the
cosine of the two directions; the background's shift as a share of what was asked; and the share of the pose's
strokes that lie on the subject. Means with 95 % intervals; differences are paired, clip by clip.

Left out: the released weights; zooms and rolls, whose mean flow has no direction.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from inference_server.engines.poseanything.request import draw_camera
from inference_server.evaluation.metrics import background_flow, pose_adherence
from inference_server.poseanything.conditioning.conditions import Conditions
from inference_server.poseanything.sampling.guiders import (
    Guider,
    NoGuidance,
    SubjectCameraGuidance,
    SubjectCameraSeparateGuidance,
)
from inference_server.poseanything.sampling.options import Settings
from inference_server.poseanything.sampling.pipeline import PoseAnythingPipeline
from inference_server.synthesis.clips import make_clip
from inference_server.synthesis.pool import camera_poses
from inference_server.training.examples import Example
from shared.camera import camera_path
from tests.benchmarks._small_model import arguments_of, draw, each, show, shows_its_subject, small_pipeline
from tests.training.mini_clips import conditions_of

FIRST_SEED = 930_000
MOVES = ("pan_left", "pan_right", "tilt_up", "tilt_down")
AMOUNT = 0.2
"""Of the picture's width or height."""
DECOUPLED = SubjectCameraGuidance(2.0)
ADDED = SubjectCameraSeparateGuidance(1.0, -3.0)
FOLLOWED = np.sqrt(0.5)
"""The cosine from which on a direction is the one asked for."""


def examples(count: int) -> Iterator[tuple[Example, str]]:
    """Drawn clips with a still camera that show their subject, each with the move asked for."""
    drawn = filter(shows_its_subject, map(make_clip, itertools.count(FIRST_SEED)))
    still = (clip for clip in drawn if clip.request.camera_motion is None)
    for clip, move in zip(itertools.islice(still, count), itertools.cycle(MOVES)):
        path = camera_path({move: AMOUNT}, clip.request.num_frames, clip.request.width, clip.request.height)
        yield dataclasses.replace(clip, request=dataclasses.replace(clip.request, camera_motion=path)), move


def ways(example: Example) -> dict[str, Callable[[Conditions], tuple[Conditions, Guider]]]:
    """From a clip's conditions to those that are asked for, and how."""
    request = example.request
    against, along = draw_camera(request.camera_motion, request.width, request.height), camera_poses(request)

    def together(conditions: Conditions) -> tuple[Conditions, Guider]:
        both = np.maximum(conditions.pose_images, along)
        return dataclasses.replace(conditions, pose_images=both), NoGuidance()

    return {
        "added": lambda given: (dataclasses.replace(given, camera_images=along), ADDED),
        "decoupled": lambda given: (dataclasses.replace(given, camera_images=against), DECOUPLED),
        "one branch": together,
        "none": lambda given: (given, NoGuidance()),
    }


def measure(frames: np.ndarray, example: Example) -> dict[str, float]:
    flow = background_flow(frames, example.request, example.labels)
    cosine = flow["camera_cosine"]
    return {
        "followed": float(cosine > FOLLOWED),
        "cosine": cosine,
        "shift, of what was asked": flow["camera_share"],
        "pose on the subject": pose_adherence(frames, example.request, example.labels),
    }


def make_and_measure(
    model: tuple[PoseAnythingPipeline, Settings], asked_for: tuple[Example, str]
) -> tuple[str, dict[str, np.ndarray], dict[str, dict]]:
    """The clip's name, and by way its frames and its figures."""
    (pipeline, settings), (example, move) = model, asked_for
    conditions, made = conditions_of(example), {}
    for name, asked in ways(example).items():
        given, guider = asked(conditions)
        made[name] = pipeline.sample(given, guider=guider, settings=settings)[0]
    figures = {name: measure(frames, example) for name, frames in made.items()}
    return f"{example.request.job}-{move}", made, figures


def main() -> None:
    parser = arguments_of(__doc__, clips=16)
    parser.add_argument("--pictures", type=Path, help="folder for what is made, way below way")
    arguments = parser.parse_args()
    start, rows = partial(small_pipeline, arguments.model, arguments.steps), defaultdict(list)
    for clip, made, figures in each(examples(arguments.clips), make_and_measure, start, arguments.processes):
        for name, of in figures.items():
            rows[name].append(of)
        if arguments.pictures:
            draw(arguments.pictures / f"{clip}.webp", list(made.values()), every=4)
    show(rows, arguments.figures)


if __name__ == "__main__":
    main()
