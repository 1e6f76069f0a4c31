"""Masks of pictures: GrabCut, a mask's size and pieces, and what is nearest to its pixels."""

from __future__ import annotations

import cv2
import numpy as np


def grab_cut(image: np.ndarray, trimap: np.ndarray, rounds: int) -> np.ndarray:
    """bool [H, W]: the subject of a picture, uint8 [H, W, 3], by GrabCut (Rother et al., 2004); the same
    answer each time.

    Args:
        trimap: uint8 [H, W] of OpenCV's `GC_*`; what is sure stays.
        rounds: how often its colours are learnt anew.
    """
    cv2.setRNGSeed(0)  # its colour models begin with a random clustering
    found, models = trimap.copy(), (np.zeros((1, 65)), np.zeros((1, 65)))
    cv2.grabCut(np.ascontiguousarray(image), found, None, *models, rounds, cv2.GC_INIT_WITH_MASK)
    return (found == cv2.GC_FGD) | (found == cv2.GC_PR_FGD)


def size_of(mask: np.ndarray) -> float:
    """A subject's size: the diagonal of the box of its mask, bool [H, W], in pixels; 0 for an empty mask."""
    _, _, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return float(np.hypot(width, height))


def touching(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """bool [H, W]: the pieces of a mask, bool [H, W], that touch the seeds, bool [H, W]."""
    _, pieces = cv2.connectedComponents(mask.astype(np.uint8))
    return mask & np.isin(pieces, np.unique(pieces[seeds]))


def from_nearest(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The picture [H, W, ...] with the value of the nearest known pixel where it is not known."""
    _, nearest = cv2.distanceTransformWithLabels(
        (~known).view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros((nearest.max() + 1, *image.shape[2:]), image.dtype)
    table[nearest[known]] = image[known]
    return table[nearest]
