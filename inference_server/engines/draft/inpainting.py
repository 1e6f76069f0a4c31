"""Filling holes in pictures."""

from __future__ import annotations

import cv2
import numpy as np

from ...poseanything.conditioning.masks import from_nearest
from .patch_match import PatchSearch

TARGET_PIXELS = 5000
"""Patches are searched for at a size at which the hole has about so many pixels."""

SHADING = 10.0
"""Grey levels below which a difference from the first guess is taken for a slip in brightness, not for
something seen."""


COARSE = 4
"""Pixels by which labels may be off."""

LEAST = 64
"""Pixels of a material that tell what it looks like."""


def spread(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[h, w, 3] float32: the known pixels' colours carried smoothly into the unknown ones (push and pull on a
    pyramid, after Gortler et al., 1996). Known pixels keep theirs."""
    weight = known.astype(np.float32)
    levels = [(image.astype(np.float32) * weight[..., None], weight)]
    while min(levels[-1][1].shape) > 1 and not (levels[-1][1] > 0).all():
        size = tuple(-(-side // 2) for side in levels[-1][1].shape[::-1])
        levels.append(tuple(cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in levels[-1]))
    mean = image[known].mean(0) if known.any() else np.full(3, 127.0)
    filled = np.broadcast_to(mean.astype(np.float32), (1, 1, 3))
    for colour, weight in reversed(levels):
        filled = cv2.resize(np.ascontiguousarray(filled), weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        filled = colour + filled * (1 - weight)[..., None]
    return filled


def complete(image: np.ndarray, hole: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """[h, w, 3] uint8: the picture with its hole filled from the rest of it; pixels outside keep their
    values. `labels` [h, w] uint8, where they are known, say which places are of one material, 0 meaning that
    nothing is known of a place.

    Which patches of the surroundings fit is agreed on from coarse to fine at a reduced size; each pixel of
    the full picture then copies from as far off, and what steps in brightness this leaves are smoothed."""
    if not hole.any():
        return image.copy()
    guess = _guess(image, hole) if labels is None else _guess_alike(image, hole, labels)
    finest = max(0, int(np.ceil(np.log2(hole.sum() / TARGET_PIXELS) / 2)))
    # Near a border the labels are too coarse to say whose a pixel is.
    square = np.ones((2 * COARSE + 1,) * 2, np.uint8)
    materials = None
    if labels is not None:
        clear = cv2.dilate(labels, square) == cv2.erode(labels, square)
        materials = labels, np.where(clear, labels, 0).astype(np.uint8)
    rng = np.random.default_rng(0)
    found = None
    for colour, missing in reversed(_reduce(guess, hole, finest)):
        small = None
        if materials is not None:
            small = tuple(
                cv2.resize(one, missing.shape[::-1], interpolation=cv2.INTER_NEAREST) for one in materials
            )
        start = None
        if found is not None:
            start = 2 * cv2.resize(
                found[0].astype(np.float32), missing.shape[::-1], interpolation=cv2.INTER_NEAREST
            )
            start = start.astype(np.int64)
        found = PatchSearch(colour, missing, start, rng, small).run() or found
    copied = (
        guess
        if found is None or not found[1].any()
        else _copy(image, guess, hole, materials, *found, 2**finest)
    )
    out = image.copy()
    out[hole] = np.clip(np.rint(copied[hole]), 0, 255)
    return out


def _guess(image, hole):
    """A first fill, in float32: from the nearest known pixels in the four directions, those along the
    picture's grain first (beside a horizon, not across it)."""
    size = tuple(-(-side // 4) for side in hole.shape[::-1])
    weight = cv2.resize((~hole).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    colour = cv2.resize(image * (~hole)[..., None].astype(np.float32), size, interpolation=cv2.INTER_AREA)
    known = weight > 0.5
    colour = spread(colour / np.maximum(weight, 1e-6)[..., None], known)
    grain = _grain(colour, known)
    beside, near_beside = _from_sides(colour, known)
    above, near_above = _from_sides(colour.transpose(1, 0, 2), known.T)
    near_beside, near_above = grain * near_beside[..., None], near_above.T[..., None]
    total = near_beside + near_above
    mixed = (near_beside * beside + near_above * above.transpose(1, 0, 2)) / np.maximum(total, 1e-12)
    mixed = np.where(total > 0, mixed, colour).astype(np.float32)
    full = cv2.resize(mixed, hole.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(hole[..., None], full, image).astype(np.float32)


def _guess_alike(image, hole, labels):
    """A first fill from what is of the same material, where the picture shows any."""
    guess = None
    for label in np.unique(labels[hole]):
        own = labels == label
        known = cv2.erode((own & ~hole).view(np.uint8), np.ones((3, 3), np.uint8)) > 0
        if label and known.sum() >= LEAST:
            one = _guess(image, ~known)
        else:
            one, own = _guess(image, hole), own & hole
        guess = one if guess is None else np.where(own[..., None], one, guess)
    return np.where(hole[..., None], guess, image).astype(np.float32)


def _grain(colour, known):
    """How much more a picture changes downward than sideways, to the third power."""
    size = tuple(max(2, side // 2) for side in known.shape[::-1])
    colour = cv2.resize(colour, size, interpolation=cv2.INTER_AREA)
    clear = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA) == 1
    sideways = np.square(np.diff(colour, axis=1))[clear[:, 1:] & clear[:, :-1]].sum() + 1
    downward = np.square(np.diff(colour, axis=0))[clear[1:] & clear[:-1]].sum() + 1
    return float(np.clip((downward / sideways) ** 3, 1e-3, 1e3))


def _from_sides(colour, known):
    """Each pixel's mean of the nearest known ones in its row, weighed by their distance, and how much it
    weighs."""
    width = known.shape[1]
    column, row = np.arange(width), np.arange(len(known))[:, None]
    left = np.maximum.accumulate(np.where(known, column, -1), axis=1)
    right = np.minimum.accumulate(np.where(known, column, width)[:, ::-1], axis=1)[:, ::-1]
    near_left = np.where(left >= 0, 1.0 / (column - left + 1) ** 2, 0)
    near_right = np.where(right < width, 1.0 / (right - column + 1) ** 2, 0)
    soft = cv2.blur(colour, (3, 1))
    mean = (
        near_left[..., None] * soft[row, left]
        + near_right[..., None] * soft[row, np.minimum(right, width - 1)]
    )
    near = near_left + near_right
    return mean / np.maximum(near, 1e-12)[..., None], near


def _reduce(colour, hole, finest):
    """The picture and its hole at half the size again and again, until the hole is all edge; from level
    `finest` on."""
    levels = []
    while min(hole.shape) >= 16:
        levels.append((colour, hole))
        if cv2.distanceTransform(np.pad(hole, 1).astype(np.uint8), cv2.DIST_C, 3).max() <= 2:
            break
        size = (hole.shape[1] // 2, hole.shape[0] // 2)
        colour = cv2.resize(colour, size, interpolation=cv2.INTER_AREA)
        hole = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    return levels[finest:]


def _copy(image, guess, hole, materials, shifts, sure, factor):
    """The full picture, float32, its hole copied by shifts found at 1 / factor of its size."""
    height, width = hole.shape
    shifts = from_nearest(shifts, sure)

    # Copy the pixels around the hole too: what they should have become tells how far the copies are off.
    ring = cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    y, x = np.nonzero(ring)
    v, u = (y + 0.5) / factor - 0.5, (x + 0.5) / factor - 0.5
    top, left = np.floor(v).astype(int), np.floor(u).astype(int)
    total, share = np.zeros((len(y), 3), np.float32), np.zeros(len(y), np.float32)
    for dy in (0, 1):
        for dx in (0, 1):
            row = np.clip(top + dy, 0, shifts.shape[0] - 1)
            column = np.clip(left + dx, 0, shifts.shape[1] - 1)
            from_y = np.clip(y + factor * shifts[row, column, 0], 0, height - 1)
            from_x = np.clip(x + factor * shifts[row, column, 1], 0, width - 1)
            weight = np.abs(1 - dy - (v - top)) * np.abs(1 - dx - (u - left)) + 1e-4
            useless = hole[from_y, from_x]
            if materials is not None:
                useless = useless | (materials[1][from_y, from_x] != materials[0][y, x])
            weight = np.where(useless, 1e-6, weight).astype(np.float32)
            total += weight[:, None] * image[from_y, from_x]
            share += weight
    copied = guess.copy()
    fine = share > 1e-3 if materials is not None else slice(None)
    copied[y[fine], x[fine]] = total[fine] / share[fine][:, None]
    edge = ring & ~hole
    copied += spread(image - copied, edge)
    copied[~hole] = image[~hole]

    drift = _shading(guess) - _shading(copied)
    slip = np.exp(-np.square(np.abs(drift).max(-1, keepdims=True) / SHADING))
    return copied + drift * slip


def _shading(picture):
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (-(-width // 8), -(-height // 8)), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), 1), (width, height), interpolation=cv2.INTER_LINEAR)
