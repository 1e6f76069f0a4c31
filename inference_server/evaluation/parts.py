"""What a part looks like, and how far it drifts from what it looked like when it was first seen.

A look is a vector of a part's pixels that neither its place nor a turn in the picture or a mirror changes:
its mean colour here, its texture here, and the features of a network in `networks`.
"""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np

SMALLEST_PART = 12
"""Pixels below which a part is too small to be found again."""
SCALES = (0.0, 2.0, 4.0)
"""Standard deviations of blurs between which a texture's bands lie, in pixels of a picture of `SIDE`."""
SIDE = 128
"""Pixels of the longer side at which textures are told in the `SCALES`; others are in proportion."""
QUANTILES = (np.arange(16) + 0.5) / 16
JUST_SEEN = 1.0
"""A contrast in CIE Lab below which a texture is next to none."""
QUARTERS = 4


class Look(Protocol):
    def describe(self, frame: np.ndarray, inside: np.ndarray) -> np.ndarray | None:
        """A vector of the pixels `inside`, bool [H, W], of a uint8 RGB frame; None where they are too few."""

    def distance(self, one: np.ndarray, other: np.ndarray) -> float:
        """Between two such vectors."""


class Colour:
    """The mean colour; distances are CIE Lab's."""

    def describe(self, frame: np.ndarray, inside: np.ndarray) -> np.ndarray:
        return _lab(frame)[inside].mean(0)

    def distance(self, one: np.ndarray, other: np.ndarray) -> float:
        return float(np.linalg.norm(one - other))


class Texture:
    """How a part's lightness and colours vary, whatever they are on average: the distributions of what two
    band-pass filters answer within the part (after Heeger and Bergen, 1995), as quantiles in CIE Lab.

    The filters are round, so a turn or a mirror changes nothing; they see no pixel of another part. Broader
    variation, as light makes it across a limb, is left out. Distances are from 0, the same, to 1, nothing in
    common, as between a pattern and a plain surface.
    """

    def describe(self, frame: np.ndarray, inside: np.ndarray) -> np.ndarray | None:
        scale = max(frame.shape[:2]) / SIDE
        area = _around(inside)
        # The rim is mixed with what lies beside it.
        rim = np.ones((2 * max(round(scale), 1) + 1,) * 2, np.uint8)
        inner = cv2.erode(np.pad(inside[area].astype(np.uint8), 1), rim)[1:-1, 1:-1] > 0
        if inner.sum() < SMALLEST_PART:
            return None
        lab = _lab(frame[area])
        levels = [_blurred(lab, inner, sigma * scale) for sigma in SCALES]
        bands = np.concatenate([fine - coarse for fine, coarse in zip(levels, levels[1:])], 1)
        return np.quantile(bands - bands.mean(0), QUANTILES, axis=0)

    def distance(self, one: np.ndarray, other: np.ndarray) -> float:
        both = np.square(one).sum() + np.square(other).sum() + len(QUANTILES) * JUST_SEEN**2
        return float(np.sqrt(np.square(one - other).sum() / both))


def part_drifts(frames: np.ndarray, labels: np.ndarray, look: Look) -> np.ndarray:
    """How far each part looks from what it does in the frame that shows it first, float [F, parts].

    NaN where it is first seen and where it is not. Light and turns make true clips drift, too: take theirs
    away.
    """
    parts = [part for part in np.unique(labels) if part]
    drifts = np.full((len(frames), len(parts)), np.nan)
    for column, part in enumerate(parts):
        first = None
        for index, frame in enumerate(frames):
            inside = labels[index] == part
            seen = look.describe(frame, inside) if inside.sum() >= SMALLEST_PART else None
            if seen is None:
                continue
            if first is None:
                first = seen
            else:
                drifts[index, column] = look.distance(first, seen)
    return drifts


def mean_drift(drifts: np.ndarray) -> float:
    """Over parts and frames; NaN where there is none."""
    return float(np.nanmean(drifts)) if np.isfinite(drifts).any() else float("nan")


def drift_by_quarter(drifts: np.ndarray) -> list[float]:
    """The mean drift in each quarter of a clip, which tells whether a subject stays what it is."""
    return [mean_drift(quarter) for quarter in np.array_split(drifts[1:], QUARTERS)]


def _around(inside: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _lab(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _blurred(lab: np.ndarray, inside: np.ndarray, sigma: float) -> np.ndarray:
    """The pixels inside, float [N, 3], blurred by what is inside alone."""
    if not sigma:
        return lab[inside]
    weights = np.float32(inside)
    total = cv2.GaussianBlur(lab * weights[..., None], (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    share = cv2.GaussianBlur(weights, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    return total[inside] / share[inside][:, None]
