"""Which poses an example has in training (paper, sections 4.3 and F)."""

from __future__ import annotations

import numpy as np

from .settings import TrainingSettings

FRAMES_OF_THE_PAPER = 81
SUBSETS = ((0.35, 21, 81), (0.20, 11, 21), (0.45, 1, 11))
"""(probability, fewest, most) of the frames that remain of 81: dense, medium, sparse."""


def sample_pose_frames(random: np.random.Generator, num_frames: int) -> np.ndarray:
    """bool [F], the frames that keep their pose: how many by the paper's subsets, in proportion to the
    clip's length;
    which ones, by halves at random or evenly spread. Frame 0, which shows the subject, always keeps its
    own."""
    _, fewest, most = SUBSETS[random.choice(len(SUBSETS), p=[subset[0] for subset in SUBSETS])]
    low, high = (max(1, round(count * num_frames / FRAMES_OF_THE_PAPER)) for count in (fewest, most))
    count = int(random.integers(low, high + 1))
    kept = np.zeros(num_frames, bool)
    kept[0] = True
    if random.random() < 0.5:
        kept[1 + random.permutation(num_frames - 1)[: count - 1]] = True
    else:
        kept[np.linspace(0, num_frames - 1, count).round().astype(int)] = True
    return kept


def draw_poses(
    random: np.random.Generator, settings: TrainingSettings, num_frames: int
) -> tuple[np.ndarray, bool]:
    """(bool [F], the frames that keep their pose; whether that is the camera's rectangle and not the
    subject's), by the settings' shares."""
    kept = np.ones(num_frames, bool)
    if random.random() < settings.camera_poses:
        return kept, True
    if random.random() < settings.sparse_poses:
        kept = sample_pose_frames(random, num_frames)
    return kept & (random.random() >= settings.pose_dropout), False
