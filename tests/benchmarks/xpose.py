"""How well XPose's stages without weights find subjects and skeletons, where the truth is known.

    python build.py bench xpose [--data FOLDER] [--clips 24]

Clips are drawn by the 2D generator from seeds that no training uses, or read from a data set that
`synthesise` packed. The subject's box in the first frame is given, no more. Printed are the mask's IoU, the
chamfer distance of the skeleton to the true bones as a share of the subject's size (the mean of both
directions), with the true masks and with those that were found, the number of segments beside the truth's,
and the seconds a frame.

Left out: stages with downloaded weights, which need a card; real videos, for which no truth is known.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import KDTree

from inference_server.datasets.dataset import read_examples
from inference_server.datasets.examples import Example
from inference_server.poseanything.conditioning.limbs.graph import resample, trace_lines
from inference_server.synthesis.clips import ClipSettings, make_clip
from inference_server.xpose.segments import segment_counts
from inference_server.xpose.skeletons.medial import MedialSkeletoniser, size_of
from inference_server.xpose.stages import Clip, Dropped, Subject, SubjectPrompt, Verdict
from inference_server.xpose.subjects.flow import FlowSubjectFinder
from inference_server.xpose.subjects.selection import iou
from shared.pose import PoseSequence
from shared.raster import draw_pose

FIRST_SEED = 900_000
SPACING = 2.0
MARGIN = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a data set with true labels")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--enlarge", type=int, default=1, help="times, for small pictures")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    rows = [measure(example, arguments.enlarge) for example in examples(arguments)]
    if not rows:
        raise SystemExit("No clip shows a subject of 1/64 of the picture in its first frame.")
    print(f"{len(rows)} clips; mean with its 95 % interval, median, worst tenth")
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        worst = np.percentile(values, 10 if name == "mask IoU" else 90)
        low, high = interval_of_mean(values)
        print(
            f"{name:28} {values.mean():8.4f} ({low:.4f} to {high:.4f}) {np.median(values):8.4f} {worst:8.4f}"
        )


def interval_of_mean(values: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """Within which 95 % of the means lie of as many values drawn from these (bootstrap)."""
    drawn = np.random.default_rng(0).choice(values, (draws, len(values)))
    return tuple(np.percentile(drawn.mean(1), (2.5, 97.5)).tolist())


def examples(arguments) -> Iterator[Example]:
    """Clips whose first frame shows a subject that the release would take."""
    if arguments.data:
        source = read_examples(arguments.data)
    else:
        settings = ClipSettings(416, 320, 17)
        source = (_filmed(make_clip(FIRST_SEED + number, settings)) for number in range(10**6))
    count = 0
    for example in source:
        first = example.labels[0] > 0
        box = cv2.boundingRect(first.astype(np.uint8))
        if box[2] * box[3] * 64 >= first.size:
            yield example
            count += 1
            if count == arguments.clips:
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


def measure(example: Example, enlarge: int) -> dict[str, float]:
    frames, truth = example.frames, example.labels > 0
    if enlarge > 1:
        size = frames.shape[2] * enlarge, frames.shape[1] * enlarge
        frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames])
        labels = (cv2.resize(mask.astype(np.float32), size) for mask in truth)
        truth = np.stack([label > 0.5 for label in labels])
    pose = example.request.pose.scaled(frames.shape[2], frames.shape[1])
    height, width = truth.shape[1:]
    left, top, wide, high = cv2.boundingRect(truth[0].astype(np.uint8))
    box = (
        left / width - MARGIN,
        top / height - MARGIN,
        (left + wide) / width + MARGIN,
        (top + high) / height + MARGIN,
    )
    clip = Clip("clip", frames, 24.0, SubjectPrompt(box=tuple(float(np.clip(edge, 0, 1)) for edge in box)))

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
        "chamfer, true masks": chamfer(from_truth, pose, truth),
        "chamfer, masks found": chamfer(from_found, pose, truth),
        "segments, the bones' own": float(bones),
        "segments found": float(np.median(segment_counts(from_found))),
        "frames with a skeleton": float((segment_counts(from_found) > 0)[seen].mean()),
        "seconds a frame, subject": (found - began) / len(frames),
        "seconds a frame, skeleton": (ended - found) / len(frames),
    }


def chamfer(found: PoseSequence, truth: PoseSequence, masks: np.ndarray) -> float:
    """The mean over frames of the distance between two skeletons, as a share of the subject's size; half the
    size where one of them is missing."""
    distances = []
    for frame, mask in enumerate(masks):
        size = size_of(mask)
        one, other = _points(found, frame), _points(truth, frame)
        if size < 8 or not len(other):
            continue
        if not len(one):
            distances.append(0.5)
            continue
        there, back = KDTree(other).query(one)[0].mean(), KDTree(one).query(other)[0].mean()
        distances.append(float(there + back) / 2 / size)
    return float(np.mean(distances)) if distances else 0.0


def _points(pose: PoseSequence, frame: int) -> np.ndarray:
    """[N, 2] points along the lines of a frame, those in the picture."""
    points, lengths = pose.frame_points(frame)
    lines = np.split(points[:, :2].astype(float), np.cumsum(lengths)[:-1])
    lines = [line for line in lines if len(line) > 1]
    dense = [
        resample(line, int(np.linalg.norm(np.diff(line, axis=0), axis=1).sum() / SPACING) + 2)
        for line in lines
    ]
    every = np.concatenate(dense) if dense else np.zeros((0, 2))
    return every[((every >= 0) & (every < (pose.width, pose.height))).all(1)]


if __name__ == "__main__":
    main()
