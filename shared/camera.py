"""Camera motion as homographies, and the moving rectangle that stands for it in the model's negative branch.

A path is [F, 3, 3] float32: homographies from pixels of the first frame to pixels of frame i that the static
background follows; the first is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .pose import Limb, PoseSequence
from .schema import MessageError

MOVES = (
    "pan_left",
    "pan_right",
    "tilt_up",
    "tilt_down",
    "zoom_in",
    "zoom_out",
    "roll_clockwise",
    "roll_counterclockwise",
)

RECTANGLE_SIZES = (0.5, 0.4, 0.3, 0.2)
"""Sides of the rectangle as fractions of the picture's, the largest that stays in view is taken."""
RECTANGLE_MARGIN = 0.02
"""How far from the picture's border it is kept, as a fraction of the longer side."""


def camera_path(moves: Mapping[str, float], num_frames: int, width: int, height: int) -> np.ndarray:
    """The path of one camera move or several at once, which starts and stops gently.

    `moves` maps names of `MOVES`, named for what the camera does, to how much over the clip: pans in picture
    widths and tilts in picture heights that the background shifts by (the other way than the camera); zooms
    as growth or shrinkage of the picture by a factor of 1 + amount, about its centre; rolls in turns about
    its centre.

    Raises `MessageError` for an unknown move, an amount that is not a number from 0 to 10, or no
    frames.
    """
    for name, value in moves.items():
        if name not in MOVES:
            raise MessageError(
                "There is no camera move {name!r}; choose among {moves}.",
                name=str(name)[:40],
                moves=", ".join(MOVES),
            )
        if not 0 <= value <= 10:
            raise MessageError(
                "The camera move {name} has the amount {value}; choose a number from 0 to 10.",
                name=name,
                value=value,
            )
    if num_frames < 1:
        raise MessageError("A camera move needs at least one frame.")
    amount = {name: float(moves.get(name, 0)) for name in MOVES}
    t = np.linspace(0, 1, num_frames)
    t = t * t * (3 - 2 * t)
    zoom = np.exp(t * (math.log1p(amount["zoom_in"]) - math.log1p(amount["zoom_out"])))
    turns = amount["roll_counterclockwise"] - amount["roll_clockwise"]
    angle = 2 * math.pi * t * turns  # clockwise on the screen
    path = np.zeros((num_frames, 3, 3))
    path[:, 0, 0] = path[:, 1, 1] = zoom * np.cos(angle)
    path[:, 1, 0] = zoom * np.sin(angle)
    path[:, 0, 1] = -path[:, 1, 0]
    path[:, 2, 2] = 1
    centre = np.array([width / 2, height / 2])
    path[:, :2, 2] = centre - path[:, :2, :2] @ centre
    path[:, 0, 2] += t * width * (amount["pan_left"] - amount["pan_right"])
    path[:, 1, 2] += t * height * (amount["tilt_up"] - amount["tilt_down"])
    return path.astype(np.float32)


def check_path(path: np.ndarray) -> None:
    """Raise `MessageError` unless `path` is a path: homographies that can be undone, the first one the
    identity."""
    if not np.allclose(_normalised(path)[0], np.eye(3), atol=1e-3):
        raise MessageError("The camera motion must start at rest: its first homography is not the identity.")


def rectangle_condition(
    path: np.ndarray, width: int, height: int, with_background: bool = False
) -> PoseSequence:
    """The rectangle sequence that tells the model of the camera's motion (paper section 4.3).

    For the paper's negative branch it moves opposite to the background: for a camera that pans left, whose
    background moves rightward, it moves leftward. It is as large as half the picture and placed so that it
    stays in view the whole way; where even the smallest does not fit, it starts in view and is clipped at the
    picture's border. Draw it with `raster.condition_images`, in the look of every other pose.

    path: [F, 3, 3] homographies on a picture of `width` x `height`. Raises `MessageError` when they can't be
        undone.
    with_background: it moves as the background does, for checkpoints that have learnt it so.
    """
    motion = _normalised(path)
    if not with_background:
        motion = _normalised(np.linalg.inv(motion))
    corners = _place_rectangle(motion, np.array([width, height], float))
    moved = np.concatenate([corners, np.ones((4, 1))], 1) @ motion.transpose(0, 2, 1)
    overhang = RECTANGLE_MARGIN * max(width, height)  # the cut ends lie where they are not seen
    view = (-overhang, -overhang, width + overhang, height + overhang)
    shown, points = _clip(moved, np.roll(moved, -1, axis=1), view)
    count = shown.sum(1)
    points = np.concatenate([points[shown], np.ones((count.sum(), 2, 1))], 2)
    return PoseSequence(
        width=width,
        height=height,
        parts=("camera",),
        limbs=(Limb("rectangle", 0),),
        points=points.reshape(-1, 3).astype(np.float32),
        lengths=np.full(count.sum(), 2, np.int32),
        owners=np.zeros(count.sum(), np.uint8),
        offsets=np.concatenate([[0], np.cumsum(count)]).astype(np.int32),
    )


def _place_rectangle(motion: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Corners [4, 2] in the first frame of the largest rectangle whose way through the picture stays in
    view."""
    margin = RECTANGLE_MARGIN * picture.max()
    for size in RECTANGLE_SIZES:
        half = size * picture / 2
        centre = picture / 2
        for _ in range(8):  # one step settles a pan, a zoom or perspective takes a few
            corners = centre + half * [(-1, -1), (1, -1), (1, 1), (-1, 1)]
            moved = np.concatenate([corners, np.ones((4, 1))], 1) @ motion.transpose(0, 2, 1)
            if (moved[..., 2] <= 1e-6).any():
                break
            moved = moved[..., :2] / moved[..., 2:]
            low, high = moved.min((0, 1)), moved.max((0, 1))
            if (low >= margin).all() and (high <= picture - margin).all():
                return corners
            centre = (centre + (picture - low - high) / 2).clip(half + margin, picture - half - margin)
    return corners


def _clip(start: np.ndarray, end: np.ndarray, view: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Cut segments between homogeneous points [F, S, 3] to what lies before the camera and in `view` (left,
    top, right, bottom). Returns which are left [F, S] and their ends [F, S, 2, 2] in pixels."""
    left, top, right, bottom = view
    enter, leave = np.zeros(start.shape[:2]), np.ones(start.shape[:2])
    for inward in ((0, 0, 1), (1, 0, -left), (0, 1, -top), (-1, 0, right), (0, -1, bottom)):
        a, b = start @ inward, end @ inward
        crossing = np.divide(a, a - b, out=np.zeros_like(a), where=a != b)
        enter = np.where((a < 0) & (b >= 0), np.maximum(enter, crossing), enter)
        leave = np.where((a >= 0) & (b < 0), np.minimum(leave, crossing), leave)
        leave = np.where((a < 0) & (b < 0), -1, leave)
    ends = np.stack([start + (end - start) * t[..., None] for t in (enter, leave)], 2)
    shown = (enter < leave) & (ends[..., 2] > 1e-9).all(-1)
    return shown, ends[..., :2] / np.where(shown[..., None, None], ends[..., 2:], 1)


def _normalised(path: np.ndarray) -> np.ndarray:
    """[F, 3, 3] float64 with 1 as the last element; raises `MessageError` when that or undoing it is
    impossible."""
    path = np.asarray(path, np.float64)
    if path.ndim != 3 or path.shape[1:] != (3, 3) or not len(path):
        raise MessageError(
            "A camera motion is a list of 3 x 3 homographies, not of the shape {shape}.", shape=path.shape
        )
    corner = path[:, 2:, 2:]
    if (
        not np.isfinite(path).all()
        or (np.abs(corner) <= 1e-9 * np.abs(path).max((1, 2), keepdims=True)).any()
    ):
        raise MessageError(
            "The camera motion can't be followed: a homography takes the picture's corner to infinity."
        )
    path = path / corner
    if (np.abs(np.linalg.det(path)) < 1e-9).any():
        raise MessageError(
            "The camera motion can't be followed: a homography squashes the picture to a line."
        )
    return path
