"""Pictures in colour from points, labels and depth."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

from ..shared import openpose

STROKE = 4 / 512
"""Half the width of OpenPose's limbs and the radius of its points, as fractions of the picture's shorter
side: 4 pixels where DWPose looks for people, at 512."""
HAND_STROKE = 1 / 512
"""Half the width of a hand's strokes."""


def draw_figures(
    figures: Sequence[tuple[Sequence[str], np.ndarray, np.ndarray]], width: int, height: int
) -> np.ndarray:
    """[height, width, 3] uint8: people as DWPose draws them: limbs as darkened ellipses, points on top as
    discs, hands as thin strokes over all.

    figures: the names [L] of each person's limbs, as `rig.trained_look` has them, their ends [L, 2, 2] in
        pixels, and which of them are seen [L].
    """
    picture = np.zeros((height, width, 3), np.uint8)
    radius = max(STROKE * min(width, height), 1.5)
    body = len(openpose.BODY_LIMBS)
    for _, ends, seen in figures:
        for limb in range(body):
            if seen[limb]:
                shade = np.array(openpose.COLOURS[limb]) * openpose.LIMB_SHADE
                _ellipse(picture, *ends[limb], radius, shade.astype(np.uint8))
    for _, ends, seen in figures:
        points = {
            index: ends[limb, end]
            for limb, joined in enumerate(openpose.BODY_LIMBS)
            for end, index in enumerate(joined)
            if seen[limb]
        }
        for index in sorted(points):
            _disc(picture, points[index], radius, openpose.COLOURS[index])
    thin, colours = max(HAND_STROKE * min(width, height), 0.75), openpose.hand_colours()
    for names, ends, seen in figures:
        for limb in range(body, len(names)):
            if seen[limb]:
                _stroke(picture, *ends[limb], thin, colours[hand_limb(names[limb])])
        for limb in range(body, len(names)):
            for point in ends[limb] if seen[limb] else ():
                _disc(picture, point, radius / 2, openpose.HAND_POINT_COLOUR)
    return picture


def hand_limb(name: str) -> int:
    """Which of `openpose.HAND_LIMBS` a hand's limb is, by its name ("left ring finger 2")."""
    _, finger = name.split(" ", 1)
    finger, joint = finger.rsplit(" ", 1)
    return 4 * openpose.FINGERS.index(finger) + int(joint) - 1


def part_colours(count: int) -> np.ndarray:
    """[count + 1, 3] uint8: black for no part, then a colour for each, neighbours far apart."""
    colours = [(0, 0, 0)]
    for k in range(count):
        hue, ring = (k * 0.618034) % 1.0, k // 12
        colours.append(tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue, (0.9, 0.55)[ring % 2], 1.0)))
    return np.array(colours, np.uint8)


def grey_depth(nearness: np.ndarray, near: float, far: float) -> np.ndarray:
    """[H, W, 3] uint8 from 1 / depth [H, W] (0 where nothing is): white at `near` and black at `far`, both as
    1 / depth."""
    grey = np.clip((nearness - far) / max(near - far, 1e-12), 0, 1)
    return np.repeat((grey * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=2)


def _window(picture, low, high):
    """A slice of the picture around x, y from `low` to `high`, and the coordinates of its pixels' centres."""
    height, width = picture.shape[:2]
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    left, top = (int(np.clip(np.floor(v), 0, m)) for v, m in zip(low, (width, height), strict=True))
    right, bottom = (int(np.clip(np.ceil(v) + 1, 0, m)) for v, m in zip(high, (width, height), strict=True))
    if left >= right or top >= bottom:
        return None
    x, y = np.arange(left, right) + 0.5, np.arange(top, bottom)[:, None] + 0.5
    return picture[top:bottom, left:right], x, y


def _ellipse(picture, start, end, radius, colour) -> None:
    """An ellipse from one point to another, `radius` thick to either side of its middle."""
    half = max(float(np.linalg.norm(end - start)) / 2, radius)
    found = _window(picture, np.minimum(start, end) - radius, np.maximum(start, end) + radius)
    if found is None:
        return
    piece, x, y = found
    (cx, cy), way = (start + end) / 2, _way(end - start)
    along, across = (x - cx) * way[0] + (y - cy) * way[1], (y - cy) * way[0] - (x - cx) * way[1]
    piece[(along / half) ** 2 + (across / radius) ** 2 <= 1] = colour


def _disc(picture, centre, radius, colour) -> None:
    found = _window(picture, centre - radius, centre + radius)
    if found is not None:
        piece, x, y = found
        piece[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2] = colour


def _stroke(picture, start, end, radius, colour) -> None:
    found = _window(picture, np.minimum(start, end) - radius, np.maximum(start, end) + radius)
    if found is None:
        return
    piece, x, y = found
    step = end - start
    along = np.clip(
        ((x - start[0]) * step[0] + (y - start[1]) * step[1]) / max(float(step @ step), 1e-9), 0, 1
    )
    piece[(x - start[0] - along * step[0]) ** 2 + (y - start[1] - along * step[1]) ** 2 <= radius**2] = colour


def _way(vector) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else np.array([1.0, 0.0])
