"""Growing segments until together they cover the subject (paper Eq. 6 and 7).

Dilating n times with a 3x3 ellipse, which is a cross, sets every pixel within city-block distance n. One
distance transform thus answers for every n at once.
"""

from __future__ import annotations

import cv2
import numpy as np

from .segments import is_line

MAX_ALPHA = 100


def city_block_distance(mask: np.ndarray) -> np.ndarray:
    """float32 [H, W]: city-block distance in pixels from each pixel to the nearest set one of a bool mask [H,
    W]."""
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L1, 3)


def dilate(masks: np.ndarray, alpha: int) -> np.ndarray:
    """bool [S, H, W]: masks bool [S, H, W], each dilated `alpha` times with a 3x3 ellipse (Eq. 6)."""
    grown = [city_block_distance(mask) <= alpha if mask.any() else mask for mask in masks]
    return np.stack(grown) if grown else masks


def dilation_alpha(pose_image: np.ndarray, subject_mask: np.ndarray | None) -> int:
    """How often segments are dilated so that they cover the subject (Eq. 7).

    Counted as the release counts: the first look, before any dilation, is number 1. So drawn lines reach the
    farthest pixel of the subject one dilation earlier.

    Args:
        pose_image: uint8 [H, W], the first frame's pose, white lines on black.
        subject_mask: bool [H, W], the subject in the first frame. None or empty: alpha is 1.

    Returns:
        1 to 100.
    """
    if subject_mask is None or not subject_mask.any():
        return 1
    line = is_line(pose_image)
    if not line.any():
        return MAX_ALPHA
    return min(MAX_ALPHA, 1 + int(city_block_distance(line)[subject_mask].max()))
