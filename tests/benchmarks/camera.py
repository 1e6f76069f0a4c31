"""Camera moves that are asked for beside the subject's own poses, by the small trained model (section 5.4).

    python build.py bench camera [--clips 16] [--model FOLDER] [--pictures FOLDER]

Clips are drawn by the 2D generator with a still camera, from seeds that no training uses. The engine is
asked, as the panel asks it, for each with its own poses and one of four moves, by turns: pans to the left and
right, tilts up and down, over a fifth of the picture. It finds the parts in the poses. The ways:

- `decoupled`: the guidance by subject and camera at the checkpoint's defaults;
- `subject strength 1`, `subject strength 2`: with less and more guidance towards the subject's motion;
- `as in the paper`: at its defaults by a checkpoint that declares nothing of the camera, so that the
  rectangle moves against the background and guidance goes away from it (Eq. 10);
- `one branch`: no guidance, the poses and the rectangle that moves with the background in one picture;
- `none`: poses alone.

Printed are the share of clips whose background moves as asked, within 45 degrees (by chance a quarter); the
cosine of the two directions; how far the background goes, as a share of the way asked for; that of the pose's
strokes that lie on the subject; and PSNR on the subject, which is to move as it does in the clip. Means with
95 % intervals; differences are paired, clip by clip.

Left out: the released weights; zooms and rolls, whose mean flow has no direction.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from inference_server.datasets.examples import Example
from inference_server.evaluation.metrics import background_flow, camera_share, pixel_measures, pose_adherence
from shared.camera import camera_path, rectangle_condition
from shared.engines import Guidance
from shared.messages import GenerationRequest
from shared.pose import Polyline, PoseSequence
from tests.benchmarks._small_model import (
    Rows,
    arguments_of,
    draw,
    drawn_clips,
    each,
    frames_of,
    show,
    small_engine,
)

FIRST_SEED = 930_000
MOVES = ("pan_left", "pan_right", "tilt_up", "tilt_down")
AMOUNT = 0.2
"""Of the picture's width or height."""
FOLLOWED = np.sqrt(0.5)
"""The cosine from which on a direction is the one asked for."""
GUIDANCE = Guidance("subject_camera_separate")
STRENGTHS = (1.0, 2.0)
"""Subject strengths."""


def examples(count: int) -> Iterator[tuple[Example, str]]:
    """Drawn clips with a still camera that show their subject, each with the move asked for."""
    still = (clip for clip in drawn_clips(FIRST_SEED) if clip.request.camera_motion is None)
    for clip, move in zip(itertools.islice(still, count), itertools.cycle(MOVES)):
        path = camera_path({move: AMOUNT}, clip.request.num_frames, clip.request.width, clip.request.height)
        asked = dataclasses.replace(
            clip.request, camera_motion=path, engine_options={"parts": "images"}, preview_interval=0.0
        )
        yield dataclasses.replace(clip, request=asked), move


class Maker:
    """Makes clips in all ways by a small model, in so many steps; 0 are the checkpoint's."""

    def __init__(self, model: Path, steps: int):
        self.engine = small_engine(model)
        self.paper = small_engine(
            model, camera_condition="against_background", camera_strength=1.0, subject_strength=None
        )
        self.steps = steps or self.engine.describe().default_steps

    def make(self, request: GenerationRequest) -> dict[str, np.ndarray]:
        """By way, frames uint8 [F, H, W, 3]."""
        asked = dataclasses.replace(request, num_inference_steps=self.steps)
        guided = dataclasses.replace(asked, guidance=GUIDANCE)
        return {
            "decoupled": frames_of(self.engine, guided),
            **{
                f"subject strength {strength:g}": frames_of(self.engine, with_strength(guided, strength))
                for strength in STRENGTHS
            },
            "as in the paper": frames_of(self.paper, guided),
            "one branch": frames_of(self.engine, with_rectangle(asked)),
            "none": frames_of(self.engine, asked),
        }


def with_strength(request: GenerationRequest, strength: float) -> GenerationRequest:
    """The request with another subject strength."""
    stronger = dataclasses.replace(request.guidance, parameters={"guidance_scale": strength})
    return dataclasses.replace(request, guidance=stronger)


def with_rectangle(request: GenerationRequest) -> GenerationRequest:
    """The request with the rectangle that moves with the background for a further limb."""
    pose, path = request.pose, request.camera_motion
    rectangle = rectangle_condition(path, request.width, request.height, with_background=True)
    both = PoseSequence.from_frames(
        pose.width,
        pose.height,
        (*pose.parts, *rectangle.parts),
        (*pose.limbs, dataclasses.replace(rectangle.limbs[0], part=len(pose.parts))),
        [
            [*pose.frame(index), *(Polyline(len(pose.limbs), line.points) for line in rectangle.frame(index))]
            for index in range(request.num_frames)
        ],
    )
    return dataclasses.replace(request, pose=both)


def measure(frames: np.ndarray, example: Example) -> dict[str, float]:
    cosine = background_flow(frames, example.request, example.labels)["camera_cosine"]
    return {
        "followed": float(cosine > FOLLOWED),
        "cosine": cosine,
        "way, of what was asked": camera_share(frames, example.request, example.labels),
        "pose on the subject": pose_adherence(frames, example.request, example.labels),
        "subject, dB": pixel_measures(frames, example.frames, example.labels)["psnr_subject"],
    }


def make_and_measure(
    maker: Maker, asked_for: tuple[Example, str]
) -> tuple[str, dict[str, np.ndarray], dict[str, dict[str, float]]]:
    """The clip's name, and by way its frames and its figures."""
    example, move = asked_for
    made = maker.make(example.request)
    figures = {way: measure(frames, example) for way, frames in made.items()}
    return f"{example.request.job}-{move}", made, figures


def main() -> None:
    parser = arguments_of(__doc__, clips=16)
    parser.add_argument("--pictures", type=Path, help="folder for what is made, way below way")
    arguments = parser.parse_args()
    start = partial(Maker, arguments.model, arguments.steps)
    rows: Rows = defaultdict(list)
    for clip, made, figures in each(examples(arguments.clips), make_and_measure, start, arguments.processes):
        for way, of in figures.items():
            rows[way].append(of)
        if arguments.pictures:
            draw(arguments.pictures / f"{clip}.webp", list(made.values()), every=4)
    show(rows, arguments.figures)


if __name__ == "__main__":
    main()
