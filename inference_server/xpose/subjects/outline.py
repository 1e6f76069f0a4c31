"""A subject's outline in one picture: by its colours, those around it, what lies behind it, and the picture's
edges."""

from __future__ import annotations

import cv2
import maxflow
import numpy as np
from scipy.ndimage import gaussian_filter

from ...poseanything.conditioning.masks import touching
from .background import Cues

REACH = 0.12
"""How far an outline may move from where flow carried it, as a share of the square root of the area."""
FAR_REACH = 0.4
"""The same where it is known that what is there is not the ground."""
FIRST_PRIOR = 0.3
PRIOR = 2.0
"""How much a place within the mask counts beside its colour, in units of log likelihood: of a first guess,
and of one that flow carried on."""
DIFFERS, MOVES, STANDS = 6.0, 0.5, 1.5
"""In the same units: that a pixel differs from the bare ground, moves as the subject, or as the ground."""
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Rows and columns from a pixel to the half of its eight neighbours that come behind it."""
TOGETHER = 4.0
"""In units of log likelihood: what it costs to part two neighbours of one colour."""
BAND = 1.3
"""Pixels around an outline within which it is moved to where the picture changes."""
NEVER = 1e3
"""Log likelihood against a pixel that can't be the subject's."""
CONTRAST = 12.0
"""In CIELAB of 8 bits: where the two sides differ less, an outline stays."""


class Colours:
    """How much likelier a colour is on the subject than around it: histograms in CIELAB of the first frame's
    mask, which stay, and of the last frames', which fade."""

    BINS, FADE, KEPT = 24, 0.9, 0.5

    def __init__(self, frame: np.ndarray, mask: np.ndarray, cues: Cues | None = None):
        self._first = self._count(frame, mask, cues)
        self._recent = self._first.copy()

    def learn(self, frame: np.ndarray, mask: np.ndarray, cues: Cues | None = None) -> None:
        if mask.any():
            self._recent = self.FADE * self._recent + (1 - self.FADE) * self._count(frame, mask, cues)

    def evidence(self, frame: np.ndarray) -> np.ndarray:
        """float32 [H, W]: the logarithm of the ratio, within -3 and 3."""
        subject, around = self.KEPT * self._first + (1 - self.KEPT) * self._recent
        ratio = np.log((subject + 1e-5) / (around + 1e-5)).clip(-3, 3).astype(np.float32)
        return ratio.ravel()[self._places(frame)]

    def _count(self, frame: np.ndarray, mask: np.ndarray, cues: Cues | None) -> np.ndarray:
        """[2, bins, bins, bins] shares of the colours on the subject and in a ring around it."""
        reach = max(round(np.sqrt(np.count_nonzero(mask))), 4)
        ring = cv2.dilate(mask.astype(np.uint8), disc(reach)).astype(bool)
        ring &= ~cv2.dilate(mask.astype(np.uint8), disc(2)).astype(bool)
        if cues is not None:  # what is sure to be one is not counted as the other
            ring &= cues.differs <= 0.5
            mask = mask & (cues.differs >= -0.5) & (cues.moves >= -0.5)
        places, shares = self._places(frame), []
        for area in (mask, ring):
            counts = np.bincount(places[area], minlength=self.BINS**3).reshape((self.BINS,) * 3)
            shares.append(gaussian_filter(counts / max(area.sum(), 1), 0.8))
        return np.stack(shares)

    def _places(self, frame: np.ndarray) -> np.ndarray:
        """int [H, W]: the bin of each pixel."""
        lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB).astype(np.int32)
        lab[..., 1:] = (2 * lab[..., 1:] - 128).clip(0, 255)  # colours lie near the middle
        return lab * self.BINS // 256 @ np.array([self.BINS**2, self.BINS, 1], np.int32)


def weighed(colours: np.ndarray, cues: Cues | None) -> np.ndarray:
    """Colours with what lies behind, in log likelihood; where the ground is known, colours count less."""
    if cues is None:
        return colours
    moves = MOVES * cues.moves.clip(0, 1) + STANDS * cues.moves.clip(-1, 0)
    return (1 - np.abs(cues.differs)) * colours + DIFFERS * cues.differs + moves


def refined(frame: np.ndarray, mask: np.ndarray, apart: np.ndarray, cues: Cues | None = None) -> np.ndarray:
    """A first mask without what has the colours around it more than its own, such as the grass between legs,
    and with what it left out."""
    for _ in range(3):
        if mask.any():
            evidence = weighed(Colours(frame, mask, cues).evidence(frame), cues)
            mask = fit_mask(frame, evidence, mask, apart, cues, prior=FIRST_PRIOR)
    return mask


def fit_mask(
    frame: np.ndarray,
    evidence: np.ndarray,
    carried: np.ndarray,
    apart: np.ndarray,
    cues: Cues | None = None,
    share: float = REACH,
    prior: float = PRIOR,
) -> np.ndarray:
    """A mask that flow carried on, its outline moved to the picture's edges nearby, by `share` of the square
    root of its area at most, but not over what lies nearer to `apart`."""
    if not carried.any():
        return carried
    side = np.sqrt(np.count_nonzero(carried))
    reach = max(share * side, 2)
    inside = signed_distance(carried)
    near = inside > -reach
    if cues is not None:
        near |= (cues.differs > 0) & (inside > -FAR_REACH * side)
    if apart.any():
        near &= inside > signed_distance(apart)
    mask = _cut_out(frame, evidence + prior * (inside / reach).clip(-1, 1), near)
    mask = without_specks(touching(mask, carried))
    return mask if cues is None else _sharpened(frame, mask)


def _cut_out(frame: np.ndarray, belief: np.ndarray, may: np.ndarray) -> np.ndarray:
    """bool [H, W]: what is likelier the subject, its outline short and along edges of the picture: the least
    cut of Boykov and Jolly (2001), as GrabCut makes.

    belief: float32 [H, W], log likelihood ratio. may: bool [H, W], where the subject may be.
    """
    mask = np.zeros_like(may)
    if not may.any():
        return mask
    left, top, width, height = cv2.boundingRect(may.astype(np.uint8))
    place = np.s_[top : top + height, left : left + width]
    lab = cv2.cvtColor(frame[place], cv2.COLOR_RGB2LAB).astype(np.float32) * np.float32([1, 2, 2])
    differences = [((lab - np.roll(lab, (-down, -right), (0, 1))) ** 2).sum(2) for down, right in NEIGHBOURS]
    usual = max(float(np.mean(differences)), 1e-3)
    graph = maxflow.GraphFloat(height * width, len(NEIGHBOURS) * height * width)
    nodes = graph.add_grid_nodes((height, width))
    for (down, right), difference in zip(NEIGHBOURS, differences):
        joined = np.zeros((3, 3))
        joined[1 + down, 1 + right] = 1
        weights = TOGETHER * np.exp(-difference / (2 * usual)) / np.hypot(down, right)
        graph.add_grid_edges(nodes, weights, joined, symmetric=True)
    belief = np.where(may[place], belief[place], -NEVER)
    graph.add_grid_tedges(nodes, belief.clip(0), (-belief).clip(0))
    graph.maxflow()
    mask[place] = ~graph.get_grid_segments(nodes)
    return mask


def _sharpened(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask with its outline where a pixel's colour is half that of the subject and half that of what is
    beside it."""
    if not mask.any():
        return mask
    lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB).astype(np.float32)
    inside = signed_distance(mask)
    own, other = _two_sides(lab, inside)
    across = own - other
    contrast = (across**2).sum(-1)
    share = ((lab - other) * across).sum(-1) / np.maximum(contrast, 1e-6)
    told = (np.abs(inside) <= BAND) & (contrast > CONTRAST**2)
    return without_specks(np.where(told, share > 0.5, mask))


def faint_share(frame: np.ndarray, mask: np.ndarray) -> float:
    """The share of a mask's outline on whose two sides the picture has about the same colour."""
    inside = signed_distance(mask)
    own, other = _two_sides(cv2.cvtColor(frame, cv2.COLOR_RGB2LAB).astype(np.float32), inside)
    contrast = np.linalg.norm(own - other, axis=-1)[np.abs(inside) <= BAND]
    return float((contrast < CONTRAST).mean()) if len(contrast) else 1.0


def _two_sides(lab: np.ndarray, inside: np.ndarray) -> list[np.ndarray]:
    """float32 [H, W, 3] each: near each pixel the mean colour of what lies within an outline, and beside it,
    from the signed distance to it."""
    means = []
    for weight in (np.where(inside > 1.5, 1, 0.05) * (inside > 0), inside < -1.5):
        weight = weight.astype(np.float32)
        total = cv2.GaussianBlur(weight, (0, 0), 3) + 1e-6
        means.append(cv2.GaussianBlur(lab * weight[..., None], (0, 0), 3) / total[..., None])
    return means


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """float32 [H, W]: pixels to the mask's outline, positive inside."""
    found = mask.astype(np.uint8)
    return cv2.distanceTransform(found, cv2.DIST_L2, 3) - cv2.distanceTransform(1 - found, cv2.DIST_L2, 3)


def without_specks(mask: np.ndarray, least: float = 0.005) -> np.ndarray:
    """The largest piece of a mask, and those of at least a share of its area."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    return np.isin(labels, 1 + np.nonzero(areas >= least * areas.max())[0])


def scaled_mask(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """A mask at another size, its outline smooth."""
    if mask.shape == (height, width):
        return mask
    return cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5


def disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
