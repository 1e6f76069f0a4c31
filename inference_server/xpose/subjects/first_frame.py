"""The subject in a clip's first frame: from a box, clicks, a scribble or a mask, or by its motion; cut out by
GrabCut."""

from __future__ import annotations

import cv2
import numpy as np

from ...poseanything.conditioning.masks import grab_cut, touching
from ..stages import Dropped, SubjectPrompt
from .outline import disc, refined, scaled_mask, without_specks
from .selection import largest_mask

LEAST_PIXELS = 30
STEADY = 3.0
"""Grey levels by which half of the picture changes at most where the camera stands still."""
NEAR = 0.06
"""Of the longer side: within which what changes is one thing."""
MOST_MOVING = 0.6
"""Of the picture: where more moves against the camera, it is the camera that is not understood."""


def find_mask(frame: np.ndarray, prompt: SubjectPrompt, iterations: int = 6) -> np.ndarray:
    """bool [H, W]: the subject in one picture, uint8 [H, W, 3] RGB, from a mask, a box, or points. A mask is
    taken as it is. Raises `Dropped` where nothing is found there."""
    height, width = frame.shape[:2]
    if prompt.mask is not None:
        mask = scaled_mask(np.asarray(prompt.mask, bool), width, height)
        if not mask.any():
            raise Dropped("The subject's mask is empty; draw it white on black.")
        return mask
    corners = np.array([width, height])
    if prompt.box is not None:
        low, high = _corners(prompt.box, width, height)
        if (high - low < 2).any():
            raise Dropped("The subject's box is empty; give left, top, right and bottom.")
        trimap = np.full((height, width), cv2.GC_BGD, np.uint8)
        trimap[low[1] : high[1], low[0] : high[0]] = cv2.GC_PR_FGD
    else:
        trimap = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    dot = max(round(0.008 * max(width, height)), 1)
    for points, kind in ((prompt.points, cv2.GC_FGD), (prompt.background, cv2.GC_BGD)):
        for point in np.array(points).reshape(-1, 2) * corners:
            cv2.circle(trimap, tuple(int(value) for value in point), dot, kind, -1)
    if prompt.box is None:
        trimap = _around_clicks(frame, trimap)
    mask = _grab(frame, trimap, iterations)
    mask = refined(frame, mask, trimap == cv2.GC_BGD)
    if prompt.points:
        mask = touching(mask, trimap == cv2.GC_FGD)
    else:
        mask = without_specks(mask, 0.1)
    if np.count_nonzero(mask) < LEAST_PIXELS:
        raise Dropped(
            "No subject was found there; point at it again, or draw the box around it more tightly."
        )
    return mask


def may_be(prompt: SubjectPrompt, width: int, height: int) -> np.ndarray:
    """bool [H, W]: where a prompt leaves the subject to be in the first frame."""
    if prompt.mask is not None:
        return scaled_mask(np.asarray(prompt.mask, bool), width, height)
    may = np.ones((height, width), bool)
    if prompt.box is not None:
        low, high = _corners(prompt.box, width, height)
        may[:] = False
        may[low[1] : high[1], low[0] : high[0]] = True
    return may


def _corners(box: tuple, width: int, height: int) -> np.ndarray:
    """int [2, 2]: a box's first corner and the one behind its last, in pixels."""
    return np.round(np.array(box).reshape(2, 2).clip(0, 1) * (width, height)).astype(int)


def _around_clicks(frame: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """Widen clicks to what they stand on: what a flood from them reaches before one from the picture's border
    does."""
    height, width = trimap.shape
    lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)
    markers = np.zeros((height, width), np.int32)
    edge = max(round(0.03 * max(width, height)), 1)
    markers[:edge], markers[-edge:], markers[:, :edge], markers[:, -edge:] = 1, 1, 1, 1
    markers[trimap == cv2.GC_BGD] = 1
    markers[trimap == cv2.GC_FGD] = 2
    flooded = cv2.watershed(np.ascontiguousarray(cv2.GaussianBlur(lab, (0, 0), 1.5)), markers)
    trimap = trimap.copy()
    trimap[(flooded == 2) & (trimap == cv2.GC_PR_BGD)] = cv2.GC_PR_FGD
    trimap[:edge][trimap[:edge] == cv2.GC_PR_BGD] = cv2.GC_BGD
    return trimap


def moving_mask(frames: list[np.ndarray]) -> np.ndarray | None:
    """bool [H, W]: what moves in the first frame against a camera that stands still, pans or zooms; the
    largest of it (equation 1). None where nothing does, or too much to be a subject.

    What changes within a second is what the subject sweeps over; within that GrabCut finds it.
    """
    height, width = frames[0].shape[:2]
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[:25]]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), 2).astype(np.float32)
    changed = np.zeros((height, width), np.float32)
    for other in grey[3::3]:
        camera = _camera(grey[0], other)
        if camera is None:
            return None
        still = grid @ camera[:, :2].T + camera[:, 2]
        back = cv2.remap(other, still, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        inside = (still >= 0).all(2) & (still <= (width - 1, height - 1)).all(2)
        changed = np.maximum(changed, cv2.GaussianBlur(cv2.absdiff(back, grey[0]), (0, 0), 1.5) * inside)
    swept = (changed > max(10.0, 3 * float(np.median(changed)))).astype(np.uint8)
    swept = cv2.morphologyEx(swept, cv2.MORPH_OPEN, disc(1))
    # Where a surface has no texture only its rim changes: pieces near to each other are one thing's.
    near = max(round(NEAR * max(width, height)), 2)
    count, labels = cv2.connectedComponents(cv2.dilate(swept, disc(near)))
    masks = [(labels == label) & (swept > 0) for label in range(1, count)]
    largest = largest_mask(masks)
    if largest is None:
        return None
    hull = cv2.convexHull(np.argwhere(masks[largest])[:, ::-1].astype(np.int32))
    trimap = np.full((height, width), cv2.GC_BGD, np.uint8)
    cv2.fillConvexPoly(trimap, hull, cv2.GC_PR_FGD)
    trimap = cv2.morphologyEx(trimap, cv2.MORPH_DILATE, disc(2))  # GC_BGD is 0
    if (trimap > 0).mean() > MOST_MOVING:
        return None
    mask = _grab(frames[0], trimap, 6)
    mask = without_specks(refined(frames[0], mask, trimap == cv2.GC_BGD), 0.1)
    return mask if np.count_nonzero(mask) >= LEAST_PIXELS else None


def _camera(first: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """float32 [2, 3]: how the picture's points move that move together, from one grey frame to another; None
    where less than half of them do."""
    if float(np.median(cv2.absdiff(first, other))) < STEADY:
        return np.eye(2, 3, dtype=np.float32)
    points = cv2.goodFeaturesToTrack(first, 400, 0.01, 6)
    if points is None or len(points) < 12:
        return np.eye(2, 3, dtype=np.float32)  # without texture it can't be told, and hardly matters
    there, found, _ = cv2.calcOpticalFlowPyrLK(first, other, points, None)
    kept = found.ravel() > 0
    if kept.sum() < 12:
        return None
    affine, inliers = cv2.estimateAffinePartial2D(points[kept], there[kept], ransacReprojThreshold=1.5)
    return None if affine is None or inliers.mean() < 0.5 else affine.astype(np.float32)


def _grab(frame: np.ndarray, trimap: np.ndarray, iterations: int) -> np.ndarray:
    """GrabCut around the trimap's unknown part; bool [H, W]."""
    rows, columns = np.nonzero(trimap != cv2.GC_BGD)
    if not len(rows):
        return np.zeros(trimap.shape, bool)
    margin = 12 + (max(np.ptp(rows), np.ptp(columns)) // 6)
    top, left = max(rows.min() - margin, 0), max(columns.min() - margin, 0)
    place = np.s_[top : rows.max() + margin + 1, left : columns.max() + margin + 1]
    part = trimap[place]
    foreground = (part == cv2.GC_FGD) | (part == cv2.GC_PR_FGD)
    if foreground.all() or not foreground.any():
        return trimap == cv2.GC_FGD
    mask = np.zeros(trimap.shape, bool)
    mask[place] = grab_cut(frame[place], part, iterations)
    return mask
