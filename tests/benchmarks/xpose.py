"""How well XPose's stages without weights find subjects and skeletons, where the truth is known.

    python build.py bench xpose [--data FOLDER] [--clips 24] [--each 5] [--said box] [--twin | --empty 60]

Clips are drawn by the 2D generator from seeds that no training uses, or read from a data set that
`synthesise` packed. Of the subject is said where it is in the first frame, by default by its box, no more.
Printed are the mask's IoU, that of the first frame alone, the chamfer distance of the skeleton to the true
bones as a share of the subject's size (the mean of both directions), with the true masks and with those that
were found, the number of segments beside the truth's, and the seconds a frame.

With --twin the subject stands in the picture a second time, touching it, and the first is pointed out.
With --empty N boxes are drawn around nothing instead: N of noise, smooth and fine, of gradients, patterns and
plain colours, and N of the clips' ground beside the subject. Printed is in how many a subject is found.

Left out: stages with downloaded weights, which need a card; real videos, for which no truth is known.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from inference_server.datasets.dataset import read_examples
from inference_server.datasets.examples import Example
from inference_server.evaluation.skeletons import SMALLEST, chamfer, points_of_pose
from inference_server.poseanything.conditioning.limbs.graph import trace_lines
from inference_server.poseanything.conditioning.masks import size_of
from inference_server.synthesis.clips import ClipSettings, make_clip
from inference_server.xpose.segments import segment_counts
from inference_server.xpose.skeletons.medial import MedialSkeletoniser
from inference_server.xpose.stages import Clip, Dropped, Subject, SubjectPrompt, Verdict
from inference_server.xpose.subjects.first_frame import find_mask
from inference_server.xpose.subjects.flow import FlowSubjectFinder
from inference_server.xpose.subjects.selection import iou
from shared.pose import PoseSequence
from shared.raster import draw_pose

FIRST_SEED = 900_000
MARGIN = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a data set with true labels")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--each", type=int, default=10**6, help="at most so many clips of a subject")
    parser.add_argument("--said", choices=SAID, default="box", help="of the subject in the first frame")
    parser.add_argument("--enlarge", type=int, default=1, help="times, for small pictures")
    parser.add_argument("--twin", action="store_true", help="a second subject that looks and moves alike")
    parser.add_argument("--empty", type=int, metavar="N", help="boxes around nothing, of each kind")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.empty:
        return measure_empty(arguments)
    rows, subjects = [], []
    shown = examples(arguments)
    if arguments.twin:
        shown = filter(None, map(with_twin, shown))
    for number, example in enumerate(shown):
        rows.append(measure(example, SAID[arguments.said], number, arguments.enlarge))
        subjects.append(example.subject)
        print(f"{example.subject}: IoU {rows[-1]['mask IoU']:.3f}", file=sys.stderr, flush=True)
    if not rows:
        raise SystemExit("No clip shows a subject of 1/64 of the picture in its first frame.")
    print(
        f"{len(rows)} clips of {len(set(subjects))} subjects; mean with its 95 % interval over the subjects,"
        " median, worst tenth"
    )
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        worst = np.percentile(values, 10 if "IoU" in name else 90)
        low, high = interval_of_mean(values, subjects)
        print(
            f"{name:28} {values.mean():8.4f} ({low:.4f} to {high:.4f}) {np.median(values):8.4f} {worst:8.4f}"
        )


def measure_empty(arguments) -> None:
    random = np.random.default_rng(0)
    made = [("made", made_ground(number, random), random_box(random)) for number in range(arguments.empty)]
    filmed = [("filmed", *beside) for beside in grounds(arguments, random)]
    for kind in ("made", "filmed"):
        own = [(frames, box) for name, frames, box in [*made, *filmed] if name == kind]
        found = sum(find_in(frames, box) for frames, box in own)
        print(f"{kind}: a subject is found in {found} of {len(own)} boxes around nothing")


def find_in(frames: np.ndarray, box: tuple[float, ...]) -> bool:
    try:
        return bool(find_mask(list(frames), SubjectPrompt(box=box)).any())
    except Dropped:
        return False


def random_box(random: np.random.Generator) -> tuple[float, ...]:
    size = random.uniform(0.2, 0.5, 2)
    corner = random.uniform(0.03, 0.97 - size)
    return (*corner, *(corner + size))


def made_ground(number: int, random: np.random.Generator) -> np.ndarray:
    """uint8 [5, 192, 320, 3]: noise of one scale, a gradient, a pattern, or a plain colour; every other one
    drifts."""
    y, x = np.mgrid[:192, :320]
    kind, scale = number % 4, (0, 1, 2, 4, 8, 16)[number // 4 % 6]
    grain = random.normal(0, 2, (192, 320, 3))
    colours = random.uniform(40, 216, (2, 3))
    if kind == 0:
        noise = random.normal(0, 1, (192, 320, 3))
        noise = cv2.GaussianBlur(noise, (0, 0), scale) if scale else noise
        image = 128 + random.uniform(10, 60) * noise / noise.std()
    elif kind == 1:
        ramp = x * random.normal() + y * random.normal()
        share = ((ramp - ramp.min()) / np.ptp(ramp))[..., None]
        image = colours[0] + (colours[1] - colours[0]) * share + grain
    elif kind == 2:
        stripes = (x // (6 + scale) + y // (6 + scale) * (number // 24 % 2)) % 2
        image = colours[stripes] + grain
    else:
        image = colours[0] + grain
    still = image.clip(0, 255).astype(np.uint8)
    return np.stack([np.roll(still, step * (number // 4 % 2), (0, 1)) for step in range(5)])


def grounds(arguments, random: np.random.Generator) -> Iterator[tuple[np.ndarray, tuple[float, ...]]]:
    """The clips' first frames, each with a box that the subject does not touch, where there is room."""
    clips = argparse.Namespace(**{**vars(arguments), "clips": arguments.empty})
    for example in examples(clips):
        seen = (example.labels[:5] > 0).any(0)
        for box in (random_box(random) for _ in range(50)):
            if not seen[_within(box, seen.shape)].any():
                yield example.frames[:5], box
                break


def _within(box: tuple[float, ...], shape: tuple[int, int]) -> tuple[slice, slice]:
    height, width = shape
    left, top, right, bottom = np.round(np.array(box) * (width, height, width, height)).astype(int)
    return np.s_[max(top - 6, 0) : bottom + 6, max(left - 6, 0) : right + 6]


def interval_of_mean(values: np.ndarray, subjects: list[str], draws: int = 2000) -> tuple[float, float]:
    """Within which 95 % of the means lie of as many subjects drawn from these, with all their clips
    (bootstrap)."""
    names, which = np.unique(subjects, return_inverse=True)
    sums, counts = np.bincount(which, values), np.bincount(which)
    drawn = np.random.default_rng(0).integers(len(names), size=(draws, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return tuple(np.percentile(means, (2.5, 97.5)).tolist())


def say_box(mask: np.ndarray, random: np.random.Generator) -> SubjectPrompt:
    """With a margin all around."""
    height, width = mask.shape
    left, top, wide, high = cv2.boundingRect(mask.astype(np.uint8))
    edges = left / width - MARGIN, top / height - MARGIN
    edges += (left + wide) / width + MARGIN, (top + high) / height + MARGIN
    return SubjectPrompt(box=tuple(np.clip(edges, 0, 1).tolist()))


def say_middle(mask: np.ndarray, random: np.random.Generator) -> SubjectPrompt:
    """A click on where its body is thickest."""
    deep = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    row, column = np.unravel_index(deep.argmax(), deep.shape)
    return SubjectPrompt(points=(_point(row, column, mask),))


def say_anywhere(mask: np.ndarray, random: np.random.Generator, count: int = 1) -> SubjectPrompt:
    """Clicks on any of its pixels but those within two of its outline."""
    deep = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    rows, columns = np.nonzero(deep > min(2, 0.9 * deep.max()))
    chosen = random.integers(len(rows), size=count)
    return SubjectPrompt(points=tuple(_point(rows[each], columns[each], mask) for each in chosen))


def say_scribble(mask: np.ndarray, random: np.random.Generator) -> SubjectPrompt:
    points = say_middle(mask, random).points + say_anywhere(mask, random, 4).points
    return SubjectPrompt(points=points)


def say_box_and_click(mask: np.ndarray, random: np.random.Generator) -> SubjectPrompt:
    return dataclasses.replace(say_box(mask, random), points=say_middle(mask, random).points)


def say_mask(mask: np.ndarray, random: np.random.Generator) -> SubjectPrompt:
    return SubjectPrompt(mask=mask)


def _point(row: int, column: int, mask: np.ndarray) -> tuple[float, float]:
    return (column + 0.5) / mask.shape[1], (row + 0.5) / mask.shape[0]


SAID = {
    "box": say_box,
    "box-and-click": say_box_and_click,
    "scribble": say_scribble,
    "middle": say_middle,
    "anywhere": say_anywhere,
    "mask": say_mask,
}


def examples(arguments) -> Iterator[Example]:
    """Clips whose first frame shows a subject that the release would take."""
    if arguments.data:
        source = read_examples(arguments.data)
    else:
        settings = ClipSettings(416, 320, 17)
        source = (_filmed(make_clip(FIRST_SEED + number, settings)) for number in range(10**6))
    taken: Counter[str] = Counter()
    for example in source:
        first = example.labels[0] > 0
        box = cv2.boundingRect(first.astype(np.uint8))
        if box[2] * box[3] * 64 >= first.size and taken[example.subject] < arguments.each:
            yield example
            taken[example.subject] += 1
            if taken.total() == arguments.clips:
                return


def _filmed(example: Example) -> Example:
    """A drawn clip without its first frame, after which time may pass that no video leaves out."""
    pose = example.request.pose
    skipped = int(pose.offsets[1])
    later = PoseSequence(
        pose.width,
        pose.height,
        pose.parts,
        pose.limbs,
        pose.points[int(pose.lengths[:skipped].sum()) :],
        pose.lengths[skipped:],
        pose.owners[skipped:],
        pose.offsets[1:] - skipped,
    )
    first = example.frames[1]
    request = dataclasses.replace(
        example.request,
        num_frames=len(example.frames) - 1,
        pose=later,
        first_frame=cv2.imencode(".png", first[..., ::-1])[1].tobytes(),
        subject_mask=None,
        first_labels=None,
        part_maps=None,
        camera_motion=None,
    )
    return Example(request, example.frames[1:], example.subject, example.labels[1:])


OVERLAP = 12
"""Pixels: how far a twin's box reaches over the subject's."""


def with_twin(example: Example) -> Example | None:
    """The clip with its subject a second time behind it, nose to tail, where there is more room; None where
    less than a third of it would be seen."""
    first = example.labels[0] > 0
    left, _, width, _ = cv2.boundingRect(first.astype(np.uint8))
    step = width - OVERLAP if first.shape[1] - left - width > left else OVERLAP - width
    frames, seen = example.frames.copy(), []
    for frame, own in zip(frames, example.labels > 0):
        there = np.zeros_like(own)
        to, of = (np.s_[:, step:], np.s_[:, :-step]) if step > 0 else (np.s_[:, :step], np.s_[:, -step:])
        there[to] = own[of]
        there &= ~own
        moved = np.zeros_like(frame)
        moved[to] = frame[of]
        frame[there] = moved[there]
        seen.append(there)
    enough = 3 * np.count_nonzero(seen[0]) >= np.count_nonzero(first)
    return dataclasses.replace(example, frames=frames) if enough else None


def measure(example: Example, say: Callable, seed: int, enlarge: int) -> dict[str, float]:
    frames, truth = example.frames, example.labels > 0
    if enlarge > 1:
        size = frames.shape[2] * enlarge, frames.shape[1] * enlarge
        frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames])
        labels = (cv2.resize(mask.astype(np.float32), size) for mask in truth)
        truth = np.stack([label > 0.5 for label in labels])
    pose = example.request.pose.scaled(frames.shape[2], frames.shape[1])
    clip = Clip("clip", frames, 24.0, say(truth[0], np.random.default_rng(seed)))

    began = time.process_time()
    try:
        masks = FlowSubjectFinder().find(clip, Verdict(True)).masks
    except Dropped:
        masks = np.zeros_like(truth)
    found = time.process_time()
    skeletoniser = MedialSkeletoniser()
    from_found = skeletoniser.extract(clip, Subject(masks)).pose
    ended = time.process_time()
    from_truth = skeletoniser.extract(clip, Subject(truth)).pose
    bones = np.median([len(trace_lines(draw_pose(pose, frame) > 0).curves) for frame in range(len(frames))])
    seen = truth.any((1, 2))
    return {
        "mask IoU": float(np.mean([iou(a, b) for a, b in zip(masks[seen], truth[seen])])),
        "mask IoU, first frame": iou(masks[0], truth[0]),
        "chamfer, true masks": mean_chamfer(from_truth, pose, truth),
        "chamfer, masks found": mean_chamfer(from_found, pose, truth),
        "segments, the bones' own": float(bones),
        "segments found": float(np.median(segment_counts(from_found))),
        "frames with a skeleton": float((segment_counts(from_found) > 0)[seen].mean()),
        "seconds a frame, subject": (found - began) / len(frames),
        "seconds a frame, skeleton": (ended - found) / len(frames),
    }


def mean_chamfer(found: PoseSequence, truth: PoseSequence, masks: np.ndarray) -> float:
    """The mean over frames of the distance between two skeletons, as a share of the subject's size."""
    distances = []
    for frame, mask in enumerate(masks):
        size, bones = size_of(mask), points_of_pose(truth, frame)
        if size >= SMALLEST and len(bones):
            distances.append(chamfer(points_of_pose(found, frame), bones, size))
    return float(np.mean(distances)) if distances else 0.0


if __name__ == "__main__":
    main()
