"""What is behind the subject, and how the camera sees it."""

from __future__ import annotations

import cv2
import numpy as np

from .inpainting import complete


class Background:
    """The first frame without its subject (`plate`, RGB uint8), seen by a camera that moves by homographies
    [F, 3, 3] between pixel positions (pixel centres at .5), or stands still (None). Beyond the picture's
    border it goes on mirrored."""

    def __init__(
        self,
        image: np.ndarray,
        subject: np.ndarray,
        camera_motion: np.ndarray | None,
        soft: int,
        edge: np.ndarray | None = None,
    ):
        """`subject` [h, w] bool is taken out together with `soft` pixels around it, which its edge may have
        coloured, and together with `edge` [h, w] bool, where its shadow's edge ran."""
        hole = cv2.dilate(subject.view(np.uint8), np.ones((2 * soft + 1,) * 2, np.uint8)) > 0
        if edge is not None:
            hole |= edge
        self.plate = complete(image, hole)
        self.motion = camera_motion

    def still(self, frame: int) -> bool:
        """Whether the camera sees in this frame what it saw in the first."""
        return self.motion is None or _stands(self.motion[frame])

    def seen(self, frame: int) -> np.ndarray:
        """What the camera sees of it; not to be written to."""
        return self.seen_by(None if self.motion is None else self.motion[frame])

    def seen_by(self, motion: np.ndarray | None) -> np.ndarray:
        """What a camera sees of it that has moved by a homography [3, 3]; not to be written to."""
        if motion is None or _stands(motion):
            return self.plate
        height, width = self.plate.shape[:2]
        return cv2.warpPerspective(
            self.plate,
            np.linalg.inv(HALF) @ motion.astype(np.float64) @ HALF,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )


HALF = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
"""From pixel indices to pixel positions."""


def _stands(motion: np.ndarray) -> bool:
    return np.allclose(motion, motion[2, 2] * np.eye(3), rtol=0, atol=1e-5 * abs(motion[2, 2]))
