"""How near two skeletons are, and how near that of a clip's subject is to the pose that was asked for."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import KDTree

from shared.messages import GenerationRequest
from shared.pose import PoseSequence

from ..poseanything.conditioning.limbs.graph import curve_length, resample
from ..poseanything.conditioning.limbs.medial import medial_curves
from ..poseanything.conditioning.masks import size_of
from .subjects import find_subjects

NEAR = 0.02
"""Of the subject's size: a point of one skeleton is on the other that lies no farther from it."""
SMALLEST = 8.0
"""Pixels of a subject's size below which it has no skeleton."""
MISSING = 0.5
"""The distance from a skeleton that is not there, as a share of the subject's size."""


def skeleton_measures(
    frames: np.ndarray, truth: np.ndarray, request: GenerationRequest, labels: np.ndarray
) -> dict[str, float]:
    """The medial lines of the subject that a clip shows (`find_subjects`, and `medial` of XPose) against the
    strokes that were asked for, means over frames 1 and on; NaN where none of them asks for any.

    Returns:
        skeleton_chamfer: the distance between the two in percent of the subject's size (`chamfer`).
        skeleton_precision: the share of the points found that lie on strokes asked for, within `NEAR`;
            skeleton_recall: of the strokes asked for, the share that lies on lines found; skeleton_f: their
            harmonic mean.
    """
    masks = find_subjects(frames, truth, labels, request.camera_motion)
    height, width = masks.shape[1:]
    pose = request.pose.scaled(width, height)
    rows = []
    for index in range(1, len(masks)):
        true = cv2.resize(labels[index], (width, height), interpolation=cv2.INTER_NEAREST) > 0
        size, asked = size_of(true), points_of_pose(pose, index)
        if size >= SMALLEST and len(asked):
            found = points_along(medial_curves(masks[index]))
            rows.append([100 * chamfer(found, asked, size), *_shares(found, asked, NEAR * size)])
    names = ("skeleton_chamfer", "skeleton_precision", "skeleton_recall", "skeleton_f")
    means = np.mean(rows, 0) if rows else np.full(len(names), np.nan)
    return dict(zip(names, means.tolist()))


def distances(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From each of the points [N, 2] to the nearest of the others [M, 2], and from each of those back; both
    hold at least one."""
    return KDTree(other).query(one)[0], KDTree(one).query(other)[0]


def chamfer(one: np.ndarray, other: np.ndarray, size: float) -> float:
    """The distance between two skeletons, given as points along them, as a share of a subject's size: the
    mean of both directions; `MISSING` where one of them is empty."""
    if not len(one) or not len(other):
        return MISSING
    there, back = distances(one, other)
    return float(there.mean() + back.mean()) / 2 / size


def _shares(found: np.ndarray, asked: np.ndarray, near: float) -> tuple[float, float, float]:
    """Precision, recall and their harmonic mean."""
    if not len(found):
        return 0.0, 0.0, 0.0
    precision, recall = (float((of <= near).mean()) for of in distances(found, asked))
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def points_of_pose(pose: PoseSequence, frame: int) -> np.ndarray:
    """[N, 2] points along the lines of a frame, those in the picture."""
    points, lengths = pose.frame_points(frame)
    every = points_along(np.split(points[:, :2].astype(float), np.cumsum(lengths)[:-1]))
    return every[((every >= 0) & (every < (pose.width, pose.height))).all(1)]


def points_along(lines: list[np.ndarray]) -> np.ndarray:
    """[N, 2] points along polylines [K, 2], a pixel from one to the next at most."""
    dense = [resample(line, int(curve_length(line)) + 2) for line in lines if len(line) > 1]
    return np.concatenate(dense) if dense else np.zeros((0, 2))
