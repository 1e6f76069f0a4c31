"""Clips from picture files: a first frame and a folder of pose images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .conditions import Conditions, InputError, LatentGrid
from .parts import squash, subject_from_cutout
from .parts.segments import is_line
from .pictures import decode_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read_conditions(
    first_frame: Path,
    poses: Path,
    *,
    subject: Path | None = None,
    num_frames: int | None = None,
    longer_side: int = 832,
    prompt: str = "",
    negative_prompt: str = "",
    grid: LatentGrid = LatentGrid(),
    most_frames: int = 81,
) -> Conditions:
    """The conditions of a clip of the release's size for its first pose image, to which everything is
    squashed.

    Args:
        first_frame: a picture.
        poses: a folder of pictures, white lines on black, one a frame in the order of their names; black is
            no pose.
        subject: the first frame's subject cut out on white.
        num_frames: by default as many as there are poses for, at most `most_frames`.
        grid: of the model that is to make it; the released one's sizes are multiples of 32, of 1 + 4 n
            frames.

    Raises `InputError`.
    """
    if num_frames is not None:
        grid.check_size(grid.stride, grid.stride, num_frames)
    if not poses.is_dir():
        raise InputError(f"There is no folder {poses}; name the one with the pose images.")
    files = sorted(path for path in poses.iterdir() if path.suffix.lower() in SUFFIXES)
    if num_frames is None:
        num_frames = grid.num_frames(grid.latent_frames(min(len(files), most_frames)))
    if not files or len(files) < num_frames:
        needed = max(num_frames, grid.num_frames(2))
        raise InputError(f"{poses} holds {len(files)} pose images; {needed} are needed.")
    images = [cv2.cvtColor(read_picture(file), cv2.COLOR_RGB2GRAY) for file in files[:num_frames]]
    width, height = grid.fit_size(images[0].shape[1], images[0].shape[0], longer_side)
    pose_images = np.stack([squash(image, width, height) for image in images])
    return Conditions(
        first_frame=squash_photo(read_picture(first_frame), width, height),
        pose_images=pose_images,
        pose_frames=[index for index, image in enumerate(pose_images) if is_line(image).any()],
        prompt=prompt,
        negative_prompt=negative_prompt,
        subject_mask=None if subject is None else subject_from_cutout(read_picture(subject), width, height),
    )


def read_picture(file: Path) -> np.ndarray:
    """uint8 [H, W, 3], RGB, of a file. Raises `InputError`."""
    try:
        return decode_picture(file.read_bytes())
    except (OSError, InputError) as error:
        raise InputError(
            f"The picture {file} can't be read; look whether it is there, and save it again."
        ) from error


def squash_photo(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """A photograph at another size, each axis scaled on its own; by area where it shrinks."""
    shrinks = image.shape[0] * image.shape[1] > height * width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
