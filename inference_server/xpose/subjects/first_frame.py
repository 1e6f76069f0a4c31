"""The subject in a clip's first frame: from a box, clicks, a scribble or a mask, or by its motion; cut out by
GrabCut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from skimage.segmentation import watershed

from ...poseanything.conditioning.masks import grab_cut, touching
from ..stages import Dropped, SubjectPrompt
from .outline import disc, faint_share, refined, scaled_mask, without_specks
from .selection import iou, largest_mask

LEAST_PIXELS = 30
ITERATIONS = 6
"""Of GrabCut."""
DOT = 0.008
"""Of the longer side: the radius of a click."""
EDGE = 0.03
"""Of the longer side: the picture's border, which no subject that was clicked on lies in."""
SCALES = (1.5, 3.0, 5.0, 8.0)
"""Pixels by which a picture is blurred for a flood to pass over its details."""
AHEAD = 3
"""Frames that show what moves together with what was clicked on."""
LEAST_MOTION = 1.0
"""Pixels that something must move by against the rest."""
AROUND = 0.015
"""Of the longer side: what a flood over the motion may fall short by, and what is close around a box."""
ALIKE = 0.5
"""Of the larger of two halves: what the smaller one has of its area."""
NARROW = 0.5
"""Of the thickness of two halves: that of what joins them."""
LEAST_FILLED = 0.7
"""Of a box, which the box around the subject in it covers."""
LEAST_IN_BOX = 0.15
"""The same of a box that has a subject in it at all."""
MOST_FAINT = 0.4
"""Of a subject's outline: where it hardly differs from what is beside it."""
MOST_OF_BORDER = 0.3
"""Of the picture's border, which a subject covers."""
STEADY = 3.0
"""Grey levels by which half of the picture changes at most where the camera stands still."""
NEAR = 0.06
"""Of the longer side: within which what changes is one thing."""
MOST_MOVING = 0.6
"""Of the picture: where more moves against the camera, it is the camera that is not understood."""


def find_mask(frames: Sequence[np.ndarray], prompt: SubjectPrompt) -> np.ndarray:
    """bool [H, W]: the subject in the first of a clip's frames, uint8 [H, W, 3] RGB, from a mask, a box, or
    points. A mask is taken as it is. One frame is enough; those after it show what moves together. Raises
    `Dropped` where nothing is found there."""
    height, width = frames[0].shape[:2]
    if prompt.mask is not None:
        mask = scaled_mask(np.asarray(prompt.mask, bool), width, height)
        if not mask.any():
            raise Dropped("The subject's mask is empty; draw it white on black.")
        return mask
    trimap = _trimap(prompt, width, height)
    if prompt.box is not None:
        mask = _cut_in_box(frames, trimap)
        if not prompt.points and not _stands_out(frames[0], mask, trimap):
            mask = np.zeros_like(mask)
    else:
        mask = _most_agreed(list(_guesses(frames, trimap)), of_parts=len(prompt.points) == 1)
        mask = _without_twin(mask, trimap == cv2.GC_FGD)
    if np.count_nonzero(mask) < LEAST_PIXELS:
        raise Dropped(
            "No subject was found there; point at it again, or draw the box around it more tightly."
        )
    return mask


def _trimap(prompt: SubjectPrompt, width: int, height: int) -> np.ndarray:
    """uint8 [H, W] of OpenCV's `GC_*`: what a box and points say of each pixel."""
    if prompt.box is not None:
        low, high = _corners(prompt.box, width, height)
        if (high - low < 2).any():
            raise Dropped("The subject's box is empty; give left, top, right and bottom.")
        trimap = _only_within(low, high, width, height)
    else:
        trimap = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    dot = max(round(DOT * max(width, height)), 1)
    for points, kind in ((prompt.points, cv2.GC_FGD), (prompt.background, cv2.GC_BGD)):
        for point in np.array(points).reshape(-1, 2) * (width, height):
            cv2.circle(trimap, tuple(int(value) for value in point), dot, kind, -1)
    return trimap


def _only_within(low: np.ndarray, high: np.ndarray, width: int, height: int) -> np.ndarray:
    """A trimap of a box, from its first corner to the one behind its last."""
    trimap = np.full((height, width), cv2.GC_BGD, np.uint8)
    trimap[low[1] : high[1], low[0] : high[0]] = cv2.GC_PR_FGD
    return trimap


def _cut_in_box(frames: Sequence[np.ndarray], trimap: np.ndarray) -> np.ndarray:
    """The subject in a box: what differs from all that is around it. Where that hardly fills the box, the
    subject looks like something there, such as a hill, and guesses are made from less."""
    frame = frames[0]
    mask = _cleaned(frame, _grab(frame, trimap), trimap)
    if _filled(mask, trimap) >= LEAST_FILLED:
        return mask
    narrow = round(AROUND * max(trimap.shape))
    pictures = [(frame, narrow), *((motion, None) for motion in _motions(frames))]
    others = [_cleaned(frame, _grab(picture, trimap, margin), trimap) for picture, margin in pictures]
    return _most_agreed([mask, *others])


def _cleaned(frame: np.ndarray, mask: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    mask, clicked = refined(frame, mask, trimap == cv2.GC_BGD), trimap == cv2.GC_FGD
    return touching(mask, clicked) if clicked.any() else without_specks(mask, 0.1)


def _stands_out(frame: np.ndarray, mask: np.ndarray, trimap: np.ndarray) -> bool:
    """Whether what was found in a box is a thing: in noise, the sky or grass GrabCut finds a scrap of it, or
    an outline that the picture does not have."""
    return _filled(mask, trimap) >= LEAST_IN_BOX and faint_share(frame, mask) <= MOST_FAINT


def _filled(mask: np.ndarray, trimap: np.ndarray) -> float:
    """The share of a box that the box around a mask in it covers."""
    _, _, *own = cv2.boundingRect(mask.astype(np.uint8))
    _, _, *given = cv2.boundingRect((trimap != cv2.GC_BGD).astype(np.uint8))
    return float(np.prod(own) / max(np.prod(given), 1))


def _guesses(frames: Sequence[np.ndarray], trimap: np.ndarray) -> Iterator[np.ndarray]:
    """Masks of what was clicked on: what a flood from there reaches before one from the picture's border
    does, over the picture's colours at several scales, as a subject has parts, and over its motion."""
    frame = frames[0]
    lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)
    for sigma in SCALES:
        own = trimap.copy()
        own[_flooded(cv2.GaussianBlur(lab, (0, 0), sigma), trimap) & (own == cv2.GC_PR_BGD)] = cv2.GC_PR_FGD
        yield _cleaned(frame, _grab(frame, own), own)
    height, width = trimap.shape
    margin = round(AROUND * max(width, height))
    for motion in _motions(frames):
        left, top, wide, high = cv2.boundingRect(_flooded(motion, trimap).astype(np.uint8))
        low, end = np.array([left, top]) - margin, np.array([left + wide, top + high]) + margin
        own = _only_within(low.clip(0), end, width, height)
        said = np.isin(trimap, (cv2.GC_FGD, cv2.GC_BGD))
        own[said] = trimap[said]
        yield _cleaned(frame, _grab(frame, own), own)


def _flooded(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """bool [H, W]: what a flood over an image, uint8 [H, W, 3], reaches from the clicks before one from its
    border does."""
    height, width = trimap.shape
    markers = np.zeros((height, width), np.int32)
    edge = max(round(EDGE * max(width, height)), 1)
    markers[:edge], markers[-edge:], markers[:, :edge], markers[:, -edge:] = 1, 1, 1, 1
    markers[trimap == cv2.GC_BGD] = 1
    markers[trimap == cv2.GC_FGD] = 2
    return cv2.watershed(np.ascontiguousarray(image), markers) == 2


def _motions(frames: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """uint8 [H, W, 3]: the flow from the first frame to each of those after it, as a picture; none where
    hardly anything moves otherwise than most does."""
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[: 1 + AHEAD]]
    for other in grey[1:]:
        moved = flow.calc(grey[0], other, None)
        moved = moved - np.median(moved.reshape(-1, 2), 0)
        most = float(np.percentile(np.linalg.norm(moved, axis=2), 98))
        if most >= LEAST_MOTION:
            shades = cv2.GaussianBlur((128 + 100 * moved / most).clip(0, 255).astype(np.uint8), (0, 0), 1.5)
            yield np.dstack([shades, shades[..., :1]])


def _most_agreed(guesses: list[np.ndarray], of_parts: bool = True) -> np.ndarray:
    """The mask that the others agree with most. Guesses of a part agree with each other as well: where there
    may be some, the larger counts for more. What runs along the picture's border is the ground."""
    likely = [guess for guess in guesses if np.count_nonzero(guess) >= LEAST_PIXELS]
    likely = [guess for guess in likely if _share_of_border(guess) < MOST_OF_BORDER] or likely or guesses
    support = [sum(iou(guess, other) for other in likely if other is not guess) for guess in likely]
    sides = [np.sqrt(np.count_nonzero(guess)) if of_parts else 1.0 for guess in likely]
    return likely[int(np.argmax(np.array(support) * sides))]


def _without_twin(mask: np.ndarray, clicked: np.ndarray) -> np.ndarray:
    """The half of a mask that was clicked on, where it falls into two alike halves that a narrow place joins:
    two animals of one colour that touch. The whole mask where it does not, or both were clicked on."""
    deep = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    for depth in range(1, int(deep.max())):
        count, cores, stats, _ = cv2.connectedComponentsWithStats((deep > depth).astype(np.uint8))
        areas = stats[:, cv2.CC_STAT_AREA]
        two = 1 + np.argsort(-areas[1:])[:2]
        if count < 3 or areas[two[1]] < ALIKE * areas[two[0]]:
            continue
        if depth > NARROW * min(deep[cores == core].max() for core in two):
            break
        grown = watershed(-deep, cores * np.isin(cores, two), mask=mask)
        halves = [grown == core for core in two]
        small, large = sorted(map(np.count_nonzero, halves))
        hit = [half for half in halves if (half & clicked).any()]
        if small >= ALIKE * large and len(hit) == 1:
            return hit[0]
    return mask


def _share_of_border(mask: np.ndarray) -> float:
    return float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())


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
    mask = _grab(frames[0], trimap)
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


def _grab(frame: np.ndarray, trimap: np.ndarray, margin: int | None = None) -> np.ndarray:
    """GrabCut within the trimap's unknown part; bool [H, W].

    margin: pixels of what is around it that it is compared with; by default a sixth of its size and more.
    """
    rows, columns = np.nonzero(trimap != cv2.GC_BGD)
    if not len(rows):
        return np.zeros(trimap.shape, bool)
    if margin is None:
        margin = 12 + (max(np.ptp(rows), np.ptp(columns)) // 6)
    top, left = max(rows.min() - margin, 0), max(columns.min() - margin, 0)
    place = np.s_[top : rows.max() + margin + 1, left : columns.max() + margin + 1]
    part = trimap[place]
    foreground = (part == cv2.GC_FGD) | (part == cv2.GC_PR_FGD)
    if foreground.all() or not foreground.any():
        return trimap == cv2.GC_FGD
    mask = np.zeros(trimap.shape, bool)
    mask[place] = grab_cut(frame[place], part, ITERATIONS)
    return mask
