"""What is behind the subject, and how the camera sees it."""

from __future__ import annotations

import cv2
import numpy as np

from shared.messages import Backdrop

from .inpainting import complete


class Background:
    """The first frame without its subject (`plate`, RGB uint8), seen by a camera that moves by homographies
    [F, 3, 3] between pixel positions (pixel centres at .5), or stands still (None). Where it is known what
    lies beyond the picture's border the plate goes on there, and everywhere else mirrored; its upper left
    pixel is the first frame's `corner` (x, y)."""

    def __init__(
        self,
        image: np.ndarray,
        subject: np.ndarray,
        camera_motion: np.ndarray | None,
        soft: int,
        edge: np.ndarray | None = None,
        backdrop: Backdrop | None = None,
    ):
        """`subject` [h, w] bool is taken out together with `soft` pixels around it, which its edge may have
        coloured, and together with `edge` [h, w] bool, where its shadow's edge ran."""
        hole = cv2.dilate(subject.view(np.uint8), np.ones((2 * soft + 1,) * 2, np.uint8)) > 0
        if edge is not None:
            hole |= edge
        self.size = image.shape[1], image.shape[0]
        self.motion = camera_motion
        self.corner = 0, 0
        if backdrop is None:
            self.plate = complete(image, hole)
        else:
            self.plate, self.corner = _extend(image, hole, backdrop)

    def still(self, frame: int) -> bool:
        """Whether the camera sees in this frame what it saw in the first."""
        return stands(None if self.motion is None else self.motion[frame])

    def seen(self, frame: int) -> np.ndarray:
        """What the camera sees of it; not to be written to."""
        return self.seen_by(None if self.motion is None else self.motion[frame])

    def seen_by(self, motion: np.ndarray | None) -> np.ndarray:
        """What a camera sees of it that has moved by a homography [3, 3]; not to be written to."""
        x, y = self.corner
        if stands(motion):
            return self.plate[-y : -y + self.size[1], -x : -x + self.size[0]]
        place = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)
        return cv2.warpPerspective(
            self.plate,
            BACK @ motion.astype(np.float64) @ HALF @ place,
            self.size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )


HALF = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
"""From pixel indices to pixel positions."""
BACK = np.linalg.inv(HALF)


def stands(motion: np.ndarray | None) -> bool:
    """Whether a camera that has moved by a homography [3, 3] sees what it saw at first."""
    if motion is None:
        return True
    return np.allclose(motion, motion[2, 2] * np.eye(3), rtol=0, atol=1e-5 * abs(motion[2, 2]))


def _extend(image, hole, backdrop) -> tuple[np.ndarray, tuple[int, int]]:
    """The picture with its hole filled, and carried on over the rectangle that labels cover, from what it
    shows of the same materials; and its upper left corner."""
    height, width = hole.shape
    begin = np.array([backdrop.left, backdrop.top]) * backdrop.cell
    size = np.array(backdrop.labels.shape[::-1]) * backdrop.cell
    box = *begin.tolist(), *(begin + size).tolist()
    left, top = min(box[0], 0), min(box[1], 0)
    right, bottom = max(box[2], width), max(box[3], height)
    room = ((-top, bottom - height), (-left, right - width))
    everywhere = np.zeros((bottom - top, right - left), np.uint8)
    known = np.pad(~hole, room)
    everywhere[box[1] - top : box[3] - top, box[0] - left : box[2] - left] = _enlarge(
        backdrop.labels, tuple(size.tolist())
    )
    picture = np.pad(image, (*room, (0, 0)), mode="reflect")
    beside = np.pad(np.zeros_like(hole), room, constant_values=True)
    # The hole first: what is seen around it counts for more than what lies beyond the border.
    inner = (slice(-top, -top + height), slice(-left, -left + width))
    picture[inner] = complete(image, hole, everywhere[inner])
    return complete(picture, ~known & beside, everywhere), (left, top)


def _enlarge(labels, size):
    """Labels at the size (width, height), their borders smooth."""
    best = np.full(size[::-1], -1, np.float32)
    out = np.zeros(size[::-1], np.uint8)
    for label in np.unique(labels):
        share = cv2.GaussianBlur((labels == label).astype(np.float32), (3, 3), 0.6)
        share = cv2.resize(share, size, interpolation=cv2.INTER_LINEAR)
        wins = share > best
        out[wins], best[wins] = label, share[wins]
    return out
