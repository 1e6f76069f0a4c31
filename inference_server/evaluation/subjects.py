"""Where the subject of a clip is: what differs from what lies behind it."""

from __future__ import annotations

import cv2
import numpy as np

FOREGROUND = 32.0
"""Difference from all that may lie behind it, in grey levels, from which on a pixel is the subject's."""
NEARER = 2.0
"""How many times nearer a pixel of the subject is to the subject's colours than to what lies behind it."""
COLOURS = 48
"""Of the true subject, that pixels are compared with."""
SIDE = 256
"""Pixels of the longer side at which subjects are looked for, at most."""
GLANCES = 8
"""Frames of the truth in which is looked for what one of them hides."""
LEAST_PIECE = 0.1
"""Of the largest piece's pixels: a smaller one is none of the subject's."""
CENTRE = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
"""From OpenCV's coordinates, where pixel centres are whole, to ours, where they are at .5."""


def moved(
    picture: np.ndarray,
    way: np.ndarray,
    flags: int = cv2.INTER_LINEAR,
    border: int = cv2.BORDER_REPLICATE,
) -> np.ndarray:
    """A picture, moved by a homography [3, 3] in pixels, as a request's camera motion has it."""
    size = picture.shape[1::-1]
    return cv2.warpPerspective(
        picture, np.linalg.inv(CENTRE) @ way @ CENTRE, size, flags=flags, borderMode=border
    )


def without_subject(frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A frame in which what its labels, [H, W], say to be the subject is painted over."""
    subject = cv2.dilate((labels > 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    return cv2.inpaint(np.ascontiguousarray(frame), subject, 3, cv2.INPAINT_TELEA)


def camera_of(camera: np.ndarray | None, frames: int) -> np.ndarray:
    """A request's camera motion of so many frames as float [F, 3, 3]; ones where it is still."""
    return np.tile(np.eye(3), (frames, 1, 1)) if camera is None else camera[:frames].astype(float)


def find_subjects(
    frames: np.ndarray, truth: np.ndarray, labels: np.ndarray, camera: np.ndarray | None
) -> np.ndarray:
    """bool [F, h, w], the longer side `SIDE` at most: the subject of a generated clip in each frame; that of
    frame 0 as its labels have it.

    It is what differs both from the true background, where other frames of the truth show it, and from the
    first one, painted over where the subject is, moved by the camera that was asked for, and has colours of
    the true subject: a background that drifts is not taken for it, nor is a subject of other colours.
    """
    height, width = frames.shape[1:3]
    scale = min(1.0, SIDE / max(height, width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    frames, truth = (
        np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in of])
        for of in (frames, truth)
    )
    labels = np.stack([cv2.resize(each, size, interpolation=cv2.INTER_NEAREST) for each in labels])
    smaller = np.diag([size[0] / width, size[1] / height, 1.0])
    ways = smaller @ camera_of(camera, len(frames)) @ np.linalg.inv(smaller)
    first = without_subject(truth[0], labels[0])
    masks = [labels[0] > 0]
    if not (labels > 0).any():
        return np.zeros(labels.shape, bool)
    colours = _colours(truth[labels > 0])
    for index in range(1, len(frames)):
        painted = moved(first, ways[index])
        behind = _shown_by_others(truth, labels, ways, index, painted)
        nearest = np.minimum(*(_differences(frames[index], each) for each in (painted, behind)))
        own = np.min([np.abs(frames[index].astype(np.float32) - each).max(-1) for each in colours], 0)
        masks.append(_pieces((nearest > FOREGROUND) & (nearest > NEARER * own)))
    return np.stack(masks)


def _colours(pixels: np.ndarray) -> np.ndarray:
    """float32 [N, 3]: the colours, `COLOURS` at most, that stand for pixels [M, 3] of uint8."""
    some = pixels[:: max(len(pixels) // 2000, 1)].astype(np.float32)
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_COUNT, 10, 0)
    return cv2.kmeans(some, min(COLOURS, len(some)), None, stop, 1, cv2.KMEANS_PP_CENTERS)[2]


def _shown_by_others(
    truth: np.ndarray, labels: np.ndarray, ways: np.ndarray, index: int, painted: np.ndarray
) -> np.ndarray:
    """The true background of a frame: its own where it shows it, else the median of other frames', else as
    `painted`."""
    glances = []
    for other in np.unique(np.linspace(0, len(truth) - 1, GLANCES).astype(int)):
        way = ways[index] @ np.linalg.inv(ways[other])
        free = cv2.erode((labels[other] == 0).astype(np.uint8), np.ones((3, 3), np.uint8))
        seen = moved(free, way, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT) > 0
        glances.append(np.where(seen[..., None], moved(truth[other], way).astype(np.float32), np.inf))
    found = np.sort(glances, 0)
    counts = np.isfinite(found).sum(0)
    median = np.take_along_axis(found, np.maximum(counts - 1, 0)[None] // 2, 0)[0]
    behind = np.where(counts > 0, median, painted)
    own = cv2.dilate((labels[index] > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
    behind[own] = truth[index][own]
    return behind.astype(np.uint8)


def _differences(frame: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """float [H, W]: of a frame from a background that may lie a pixel off."""
    near = np.ones((3, 3), np.uint8)
    above = frame.astype(np.float32) - cv2.dilate(behind, near)
    below = cv2.erode(behind, near) - frame.astype(np.float32)
    return np.maximum(above, below).max(-1)


def _pieces(mask: np.ndarray) -> np.ndarray:
    """Its large pieces, gaps of a pixel closed."""
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, pieces, about, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    if count < 2:
        return closed > 0
    areas = about[1:, cv2.CC_STAT_AREA]
    return np.isin(pieces, 1 + np.flatnonzero(areas >= LEAST_PIECE * areas.max()))
