"""What a clip is made from, and what of it belongs to a window that the model makes at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .latent_grid import InputError, LatentGrid
from .parts.merging import merge_parts
from .windows import Window

__all__ = ["Conditions", "InputError", "LatentGrid"]


@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions of one clip of F frames, all pictures at its size.

    first_frame: uint8 [H, W, 3].
    pose_images: uint8 [F, H, W], white lines on black; black where a frame has no pose (paper, section F).
    pose_frames: the frames that have one, ascending; None means all.
    subject_mask: bool [H, W], the subject in the first frame. Without it parts are as thin as the drawn
        lines.
    part_maps: uint8 [F, h, w] of any size, part index + 1, 0 where there is none: the parts as the scene
        knows them. Without them parts are found in the pose images and matched by attention.
    first_part_map: uint8 [H, W], `part_maps[0]` in more detail.
    camera_images: uint8 [F, H, W], the rectangle that tells of the camera's motion (section 4.3), moving as
        the checkpoint's `camera_condition` says.
    draft: uint8 [F, H, W, 3], a draft of the clip, for checkpoints whose flow starts from one.

    Which sizes and lengths a model can make is the `LatentGrid`'s to say. Raises `InputError` where these
    don't fit each other.
    """

    first_frame: np.ndarray
    pose_images: np.ndarray
    pose_frames: Sequence[int] = None  # type: ignore[assignment]  # a sequence once it is made
    prompt: str = ""
    negative_prompt: str = ""
    subject_mask: np.ndarray | None = None
    part_maps: np.ndarray | None = None
    first_part_map: np.ndarray | None = None
    camera_images: np.ndarray | None = None
    draft: np.ndarray | None = None

    def __post_init__(self):
        if self.pose_frames is None:
            object.__setattr__(self, "pose_frames", range(self.num_frames))
        size = self.pose_images.shape[1:]
        expected = {
            "first_frame": (*size, 3),
            "subject_mask": size,
            "first_part_map": size,
            "camera_images": (self.num_frames, *size),
            "draft": (self.num_frames, *size, 3),
        }
        for name, shape in expected.items():
            found = getattr(self, name)
            if found is not None and found.shape != shape:
                raise InputError(
                    "{name} has the shape {found} where the pose images need {shape}; scale it to them.",
                    name=name,
                    found=found.shape,
                    shape=shape,
                )
        if self.part_maps is not None and len(self.part_maps) != self.num_frames:
            raise InputError(
                "There are {count} part maps for {num_frames} frames; give one for each.",
                count=len(self.part_maps),
                num_frames=self.num_frames,
            )

    @property
    def num_frames(self) -> int:
        return len(self.pose_images)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pose_images.shape[1:]

    def with_merged_parts(self, max_parts: int) -> Conditions:
        """The same with part maps of at most `max_parts` parts; see `merge_parts`."""
        if self.part_maps is None:
            return self
        first = self.part_maps[0] if self.first_part_map is None else self.first_part_map
        merged = merge_parts(self.part_maps, first, max_parts)
        return dataclasses.replace(
            self,
            part_maps=merged[self.part_maps],
            first_part_map=None if self.first_part_map is None else merged[first],
        )

    def of_window(self, window: Window, frames_per_latent: int) -> Conditions:
        """The conditions of a window's pixel frames: the clip's first, and those of its later latent
        frames."""
        begin, end = (1 + frames_per_latent * (latent - 1) for latent in (window.start, window.stop))
        frames = np.array([0, *range(begin, end)])

        def pick(images: np.ndarray | None) -> np.ndarray | None:
            return None if images is None else images[frames]

        posed = set(self.pose_frames)
        return dataclasses.replace(
            self,
            pose_images=self.pose_images[frames],
            pose_frames=[place for place, frame in enumerate(frames.tolist()) if frame in posed],
            part_maps=pick(self.part_maps),
            camera_images=pick(self.camera_images),
            draft=pick(self.draft),
        )
