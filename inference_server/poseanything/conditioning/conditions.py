"""What a clip is made from, and how a long one is divided into windows the model can make at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from shared.release import WINDOW_FRAMES

from .parts.dilation import dilate, dilation_alpha
from .parts.matching import FRAMES_PER_LATENT
from .parts.segments import is_line

STRIDE = 32
"""Pixels to a token: 16 to a latent pixel, 2 of these to a patch."""


class InputError(ValueError):
    """What was asked for can't be made. Its text is one sentence that says what is wrong and what to do."""


@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions of one clip of F = 1 + 4 n frames, all pictures at its size.

    first_frame: uint8 [H, W, 3].
    pose_images: uint8 [F, H, W], white lines on black; black where a frame has no pose (paper, section F).
    pose_frames: the frames that have one, ascending; None means all.
    subject_mask: bool [H, W], the subject in the first frame. Without it parts are as thin as the drawn
        lines.
    part_maps: uint8 [F, h, w] of any size, part index + 1, 0 where there is none: the parts as the scene
        knows them. Without them parts are found in the pose images and matched by attention.
    first_part_map: uint8 [H, W], `part_maps[0]` in more detail.
    camera_images: uint8 [F, H, W], the rectangle that moves against the camera (section 4.3).

    Raises `InputError` where these don't fit each other.
    """

    first_frame: np.ndarray
    pose_images: np.ndarray
    pose_frames: Sequence[int] | None = None
    prompt: str = ""
    negative_prompt: str = ""
    subject_mask: np.ndarray | None = None
    part_maps: np.ndarray | None = None
    first_part_map: np.ndarray | None = None
    camera_images: np.ndarray | None = None

    def __post_init__(self):
        check_size(self.size[1], self.size[0], self.num_frames)
        if self.pose_frames is None:
            object.__setattr__(self, "pose_frames", range(self.num_frames))
        size = self.pose_images.shape[1:]
        expected = {
            "first_frame": (*size, 3),
            "subject_mask": size,
            "first_part_map": size,
            "camera_images": (self.num_frames, *size),
        }
        for name, shape in expected.items():
            found = getattr(self, name)
            if found is not None and found.shape != shape:
                raise InputError(
                    f"{name} has the shape {found.shape} where the pose images need {shape};"
                    " scale it to them."
                )
        if self.part_maps is not None and len(self.part_maps) != self.num_frames:
            raise InputError(
                f"There are {len(self.part_maps)} part maps for {self.num_frames} frames; give one for each."
            )

    @property
    def num_frames(self) -> int:
        return len(self.pose_images)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pose_images.shape[1:]

    def windows(self, num_frames: int = WINDOW_FRAMES) -> Iterator[tuple[int, Conditions]]:
        """Clips of at most `num_frames`, as equal in length as can be, and the frame each begins at, which is
        also the last of the one before.

        Those after the first have the first frame's picture still, to be replaced by the one that gets
        generated.
        """
        later = (self.num_frames - 1) // FRAMES_PER_LATENT  # latent frames after the first
        count = -(-later // max((num_frames - 1) // FRAMES_PER_LATENT, 1))
        starts = [-(-later * window // count) * FRAMES_PER_LATENT for window in range(count + 1)]
        for start, end in pairwise(starts):
            yield start, self._cut(start, end + 1)

    def _cut(self, start: int, stop: int) -> Conditions:
        frames = slice(start, stop)
        clip = dataclasses.replace(
            self,
            pose_images=self.pose_images[frames],
            pose_frames=[frame - start for frame in self.pose_frames if start <= frame < stop],
            part_maps=None if self.part_maps is None else self.part_maps[frames],
            camera_images=None if self.camera_images is None else self.camera_images[frames],
        )
        if start:
            subject = self._subject_around(clip.pose_images[0])
            clip = dataclasses.replace(clip, subject_mask=subject, first_part_map=None)
        return clip

    def _subject_around(self, pose_image: np.ndarray) -> np.ndarray | None:
        """bool [H, W]: where the subject may be in a later frame: as far from its lines as in the first
        frame."""
        if self.subject_mask is None:
            return None
        alpha = dilation_alpha(self.pose_images[0], self.subject_mask)
        return dilate(is_line(pose_image)[None], alpha - 1)[0]


def check_size(width: int, height: int, num_frames: int) -> None:
    """Raise `InputError`, naming the nearest sizes, for a clip that the model can't make."""
    if width % STRIDE or height % STRIDE:
        fitting = " x ".join(str(max(round(side / STRIDE), 1) * STRIDE) for side in (width, height))
        raise InputError(
            f"The clip is {width} x {height} pixels and the model makes multiples of {STRIDE};"
            f" choose {fitting}."
        )
    surplus = (num_frames - 1) % FRAMES_PER_LATENT
    if surplus or num_frames < 2:
        below = num_frames - surplus
        nearest = sorted({max(n, 1 + FRAMES_PER_LATENT) for n in (below, below + FRAMES_PER_LATENT)})
        raise InputError(
            f"The clip has {num_frames} frames and the model makes 5, 9, 13 and so on;"
            f" choose {' or '.join(map(str, nearest))}."
        )


def fit_size(width: int, height: int, longer_side: int = 832) -> tuple[int, int]:
    """(width, height) by the release's rule: the longer side is scaled to 832, both are cut down to multiples
    of 32."""
    longest = max(width, height)
    return tuple(max(int(side * longer_side / longest) // STRIDE, 1) * STRIDE for side in (width, height))
