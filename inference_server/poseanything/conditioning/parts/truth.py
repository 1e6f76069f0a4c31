"""Part masks where the parts are known for every frame, as from the 3D scene: nothing to segment, dilate or
match."""

from __future__ import annotations

import numpy as np


def parts_from_truth(
    part_maps: np.ndarray,
    height_tokens: int,
    width_tokens: int,
    first_map: np.ndarray | None = None,
    frames_per_latent: int = 4,
) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the same parts in all latent frames.

    A token belongs to every part that has a pixel in it, so that masks cover the subject, which is what
    dilation is after in Eq. 7; a later latent frame has the parts of all its pixel frames. Parts that
    the first frame does not show are left out: there is nothing in it to be coherent with.

    Args:
        part_maps: uint8 [F, H, W] with F = 1 + `frames_per_latent` n, of any size: part index + 1, 0 where
            there is none.
        height_tokens, width_tokens: tokens of a latent frame.
        first_map: uint8 [H, W], frame 0 in more detail than `part_maps` has it.

    Returns:
        first bool [P, h, w] and frames bool [n, P, h, w].

    Raises:
        ValueError: the frames after the first don't fill their latent frames.
    """
    num_later, surplus = divmod(len(part_maps) - 1, frames_per_latent)
    if surplus:
        raise ValueError(
            f"{len(part_maps)} part maps do not fill latent frames; give {len(part_maps) - surplus}."
        )
    first_map = part_maps[0] if first_map is None else first_map
    ids = np.setdiff1d(first_map, [0])
    first = np.zeros((len(ids), height_tokens, width_tokens), bool)
    frames = np.zeros((num_later, *first.shape), bool)
    for index, part in enumerate(ids):
        first[index] = cover_tokens(first_map == part, height_tokens, width_tokens)
        later = cover_tokens(part_maps[1:] == part, height_tokens, width_tokens)
        frames[:, index] = later.reshape(num_later, frames_per_latent, *first.shape[1:]).any(1)
    return first, frames


def cover_tokens(masks: np.ndarray, height_tokens: int, width_tokens: int) -> np.ndarray:
    """bool [..., h, w]: which tokens have any set pixel of masks bool [..., H, W] in them."""
    for axis, tokens in ((-2, height_tokens), (-1, width_tokens)):
        starts = np.arange(tokens) * masks.shape[axis] // tokens
        masks = np.logical_or.reduceat(masks, starts, axis=axis)
    return masks
