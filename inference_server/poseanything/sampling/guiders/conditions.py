"""Pose sequences that guidance steers away from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def repeat_first_pose(pose_images: np.ndarray, conditioned_frames: Sequence[int]) -> np.ndarray:
    """The negative of a pose sequence: its first pose at every frame that has one (section G).

    Args:
        pose_images: uint8 [F, H, W] or [F, H, W, 3], black where a frame has no pose.
        conditioned_frames: the frames that have one, ascending.
    """
    repeated = np.zeros_like(pose_images)
    frames = list(conditioned_frames)
    repeated[frames] = pose_images[frames[:1]]
    return repeated
