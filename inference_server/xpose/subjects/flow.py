"""`flow`: a subject without weights, from a box, clicks, a scribble or a mask, or found by its motion; cut
out by GrabCut, and followed by optical flow and its colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import maxflow
import numpy as np
from scipy.ndimage import gaussian_filter

from ...poseanything.conditioning.masks import grab_cut, touching
from ..stages import Clip, Dropped, Subject, SubjectFinder, SubjectPrompt, Verdict
from .background import Background, Cues
from .selection import largest_mask

LEAST_PIXELS = 30
STEADY = 3.0
"""Grey levels by which half of the picture changes at most where the camera stands still."""
NEAR = 0.06
"""Of the longer side: within which what changes is one thing."""
MOST_MOVING = 0.6
"""Of the picture: where more moves against the camera, it is the camera that is not understood."""
REACH = 0.12
"""How far an outline may move from where flow carried it, as a share of the square root of the area."""
JUMP = 2.5
"""How much worse than usual flow must explain a frame for the outline to be sought further away."""
FAR_REACH = 0.4
"""The same where it is known that what is there is not the ground."""
LOST = 0.3
"""In the same unit: how far away a lost part, such as a leg that was hidden, lies at most."""
FIRST_PRIOR = 0.3
PRIOR = 2.0
"""How much a place within the mask counts beside its colour, in units of log likelihood: of a first guess,
and of one that flow carried on."""
DIFFERS, MOVES, STANDS = 6.0, 0.5, 1.5
"""In the same units: that a pixel differs from the bare ground, moves as the subject, or as the ground."""
COARSE = 0.6
"""The scale at which masks are found first, to see from them what lies behind."""
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


@dataclass
class FlowSubjectFinder(SubjectFinder):
    """Without weights: a guess from colours and motion, good for one subject before a background that is not
    of its colour.

    side: the longer side, in pixels, that the work is done at.
    """

    side: int = 416

    def find(self, clip: Clip, verdict: Verdict) -> Subject:
        height, width = clip.frames.shape[1:3]
        scale = min(1.0, self.side / max(width, height))
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        frames = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in clip.frames]
        first = find_mask(frames[0], clip.prompt) if clip.prompt.says_where else moving_mask(frames)
        if first is None:
            raise Dropped(
                "No single thing moves against the background; say where the subject is by a box or a click."
            )
        small = find_masks(frames, first, _may_be(clip.prompt, *size), clip.watch)
        masks = np.zeros(clip.frames.shape[:3], bool)
        for mask, found in zip(masks, small):
            if found.any():
                mask[:] = _scaled(found, width, height)
        return Subject(masks, verdict.category or clip.prompt.text)


def _may_be(prompt: SubjectPrompt, width: int, height: int) -> np.ndarray:
    """bool [H, W]: where a prompt leaves the subject to be in the first frame."""
    if prompt.mask is not None:
        return _scaled(np.asarray(prompt.mask, bool), width, height)
    may = np.ones((height, width), bool)
    if prompt.box is not None:
        low, high = _corners(prompt.box, width, height)
        may[:] = False
        may[low[1] : high[1], low[0] : high[0]] = True
    return may


def _corners(box: tuple, width: int, height: int) -> np.ndarray:
    """int [2, 2]: a box's first corner and the one behind its last, in pixels."""
    return np.round(np.array(box).reshape(2, 2).clip(0, 1) * (width, height)).astype(int)


def _scaled(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """A mask at another size, its outline smooth."""
    if mask.shape == (height, width):
        return mask
    return cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5


def find_mask(frame: np.ndarray, prompt: SubjectPrompt, iterations: int = 6) -> np.ndarray:
    """bool [H, W]: the subject in one picture, uint8 [H, W, 3] RGB, from a mask, a box, or points. A mask is
    taken as it is. Raises `Dropped` where nothing is found there."""
    height, width = frame.shape[:2]
    if prompt.mask is not None:
        mask = _scaled(np.asarray(prompt.mask, bool), width, height)
        if not mask.any():
            raise Dropped("The subject's mask is empty; draw it white on black.")
        return mask
    corners = np.array([width, height])
    if prompt.box is not None:
        low, high = _corners(prompt.box, width, height)
        if (high - low < 2).any():
            raise Dropped("The subject's box is empty; give left, top, right and bottom.")
        trimap = np.full((height, width), cv2.GC_BGD, np.uint8)
        trimap[low[1] : high[1], low[0] : high[0]] = cv2.GC_PR_FGD
    else:
        trimap = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    dot = max(round(0.008 * max(width, height)), 1)
    for points, kind in ((prompt.points, cv2.GC_FGD), (prompt.background, cv2.GC_BGD)):
        for point in np.array(points).reshape(-1, 2) * corners:
            cv2.circle(trimap, tuple(int(value) for value in point), dot, kind, -1)
    if prompt.box is None:
        trimap = _around_clicks(frame, trimap)
    mask = _grab(frame, trimap, iterations)
    mask = _refined(frame, mask, trimap == cv2.GC_BGD)
    if prompt.points:
        mask = touching(mask, trimap == cv2.GC_FGD)
    else:
        mask = _without_specks(mask, 0.1)
    if np.count_nonzero(mask) < LEAST_PIXELS:
        raise Dropped(
            "No subject was found there; point at it again, or draw the box around it more tightly."
        )
    return mask


def _refined(frame: np.ndarray, mask: np.ndarray, apart: np.ndarray, cues: Cues | None = None) -> np.ndarray:
    """A first mask without what has the colours around it more than its own, such as the grass between legs,
    and with what it left out."""
    for _ in range(3):
        if mask.any():
            evidence = _weighed(_Colours(frame, mask, cues).evidence(frame), cues)
            mask = _fit(frame, evidence, mask, apart, cues, prior=FIRST_PRIOR)
    return mask


def _weighed(colours: np.ndarray, cues: Cues | None) -> np.ndarray:
    """Colours with what lies behind, in log likelihood; where the ground is known, colours count less."""
    if cues is None:
        return colours
    moves = MOVES * cues.moves.clip(0, 1) + STANDS * cues.moves.clip(-1, 0)
    return (1 - np.abs(cues.differs)) * colours + DIFFERS * cues.differs + moves


def _around_clicks(frame: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """Widen clicks to what they stand on: what a flood from them reaches before one from the picture's border
    does."""
    height, width = trimap.shape
    lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)
    markers = np.zeros((height, width), np.int32)
    edge = max(round(0.03 * max(width, height)), 1)
    markers[:edge], markers[-edge:], markers[:, :edge], markers[:, -edge:] = 1, 1, 1, 1
    markers[trimap == cv2.GC_BGD] = 1
    markers[trimap == cv2.GC_FGD] = 2
    flooded = cv2.watershed(np.ascontiguousarray(cv2.GaussianBlur(lab, (0, 0), 1.5)), markers)
    trimap = trimap.copy()
    trimap[(flooded == 2) & (trimap == cv2.GC_PR_BGD)] = cv2.GC_PR_FGD
    trimap[:edge][trimap[:edge] == cv2.GC_PR_BGD] = cv2.GC_BGD
    return trimap


def moving_mask(frames: list[np.ndarray]) -> np.ndarray | None:
    """bool [H, W]: what moves in the first frame against a camera that stands still, pans or zooms; the
    largest of it (equation 1). None where nothing does, or too much to be a subject.

    What changes within a second is what the subject sweeps over; within that GrabCut finds it.
    """
    height, width = frames[0].shape[:2]
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[:25]]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), 2).astype(np.float32)
    changed = np.zeros((height, width), np.float32)
    for other in grey[3::3]:
        camera = _camera(grey[0], other)
        if camera is None:
            return None
        still = grid @ camera[:, :2].T + camera[:, 2]
        back = cv2.remap(other, still, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        inside = (still >= 0).all(2) & (still <= (width - 1, height - 1)).all(2)
        changed = np.maximum(changed, cv2.GaussianBlur(cv2.absdiff(back, grey[0]), (0, 0), 1.5) * inside)
    swept = (changed > max(10.0, 3 * float(np.median(changed)))).astype(np.uint8)
    swept = cv2.morphologyEx(swept, cv2.MORPH_OPEN, _disc(1))
    # Where a surface has no texture only its rim changes: pieces near to each other are one thing's.
    near = max(round(NEAR * max(width, height)), 2)
    count, labels = cv2.connectedComponents(cv2.dilate(swept, _disc(near)))
    masks = [(labels == label) & (swept > 0) for label in range(1, count)]
    largest = largest_mask(masks)
    if largest is None:
        return None
    hull = cv2.convexHull(np.argwhere(masks[largest])[:, ::-1].astype(np.int32))
    trimap = np.full((height, width), cv2.GC_BGD, np.uint8)
    cv2.fillConvexPoly(trimap, hull, cv2.GC_PR_FGD)
    trimap = cv2.morphologyEx(trimap, cv2.MORPH_DILATE, _disc(2))  # GC_BGD is 0
    if (trimap > 0).mean() > MOST_MOVING:
        return None
    mask = _grab(frames[0], trimap, 6)
    mask = _without_specks(_refined(frames[0], mask, trimap == cv2.GC_BGD), 0.1)
    return mask if np.count_nonzero(mask) >= LEAST_PIXELS else None


def _camera(first: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """float32 [2, 3]: how the picture's points move that move together, from one grey frame to another; None
    where less than half of them do."""
    if float(np.median(cv2.absdiff(first, other))) < STEADY:
        return np.eye(2, 3, dtype=np.float32)
    points = cv2.goodFeaturesToTrack(first, 400, 0.01, 6)
    if points is None or len(points) < 12:
        return np.eye(2, 3, dtype=np.float32)  # without texture it can't be told, and hardly matters
    there, found, _ = cv2.calcOpticalFlowPyrLK(first, other, points, None)
    kept = found.ravel() > 0
    if kept.sum() < 12:
        return None
    affine, inliers = cv2.estimateAffinePartial2D(points[kept], there[kept], ransacReprojThreshold=1.5)
    return None if affine is None or inliers.mean() < 0.5 else affine.astype(np.float32)


def find_masks(
    frames: list[np.ndarray],
    first: np.ndarray,
    may: np.ndarray,
    watch: Callable[[str, int], None] = lambda stage, frames: None,
) -> list[np.ndarray]:
    """The mask of every frame, bool [H, W], from a guess of the first.

    Masks are found three times: coarsely by colours and flow; then, as it is seen by them what lies behind
    the subject, with that in mind, coarsely and at the whole size.

    Args:
        may: bool [H, W], where the subject may be in the first frame; a guess that covers all of that is
            taken as it is.
        watch: called with "subject" and the frames done.
    """
    if len(frames) == 1:
        return [first]  # nothing moves off what it hides
    height, width = first.shape
    done = 0

    def count(stage: str, _: int) -> None:
        nonlocal done
        done += 1
        watch(stage, max(done // 3, 1))

    small = max(round(COARSE * width), 16), max(round(COARSE * height), 16)
    coarse = [cv2.resize(frame, small, interpolation=cv2.INTER_AREA) for frame in frames]
    given = bool((first == may).all())
    masks, others = follow(coarse, _scaled(first, *small), watch=count)
    for images in (coarse, frames):
        height, width = images[0].shape[:2]
        scaled = [[_scaled(mask, width, height) for mask in each] for each in (masks, others)]
        behind = Background(images, *scaled)
        begin = _scaled(first if given else masks[0], width, height)
        if not given:
            begin = _refined(images[0], begin, ~_scaled(may, width, height), behind.cues(0))
        masks, others = follow(images, begin, behind, count)
    return masks


def follow(
    frames: list[np.ndarray],
    first: np.ndarray,
    behind: Background | None = None,
    watch: Callable[[str, int], None] = lambda stage, frames: None,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The mask of every frame, bool [H, W]: carried on by optical flow, then fitted to the picture by what is
    known of the subject's colours, and of what lies behind it. What has its colours and is not joined to it,
    as a second animal, is carried along as well, so that the two stay apart when they touch, and returned
    beside them. From the frame on in which the subject is lost, masks are empty."""
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    height, width = first.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), 2).astype(np.float32)
    cues = behind and behind.cues(0)
    colours = _Colours(frames[0], first, cues)
    masks, last = [first], cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY)
    misses: list[float] = []
    alike = _along_edges(frames[0], colours.evidence(frames[0]))
    others = [_others(alike, first, np.zeros_like(first))]
    for number, frame in enumerate(frames[1:], 1):
        watch("subject", number)
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if np.count_nonzero(masks[-1]) < LEAST_PIXELS:
            masks.append(np.zeros_like(first))
            others.append(np.zeros_like(first))
            continue
        back = grid + dis.calc(grey, last, None)
        carried, apart = (
            cv2.remap(mask.astype(np.float32), back, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            > 0.5
            for mask in (masks[-1], others[-1])
        )
        was = cv2.remap(last, back, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        misses.append(float(cv2.absdiff(was, grey)[carried].mean()) if carried.any() else 0.0)
        jump = misses[-1] > JUMP * max(float(np.median(misses)), 2)
        cues = behind and behind.cues(number)
        evidence = colours.evidence(frame)
        mask = _fit(frame, _weighed(evidence, cues), carried, apart, cues, 3 * REACH if jump else REACH)
        others.append(_others(_along_edges(frame, evidence), mask, apart))
        colours.learn(frame, mask, cues)
        masks.append(mask)
        last = grey
    return masks, others


def _others(evidence: np.ndarray, mask: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """bool [H, W]: what has the subject's colours but is not the subject: it does not touch it or was not it
    before, and is too large or too far away to be a part that was lost."""
    alike = ((evidence > 0) & ~mask).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(alike)
    touches, before = np.zeros(count, bool), np.zeros(count, bool)
    touches[labels[cv2.dilate(mask.astype(np.uint8), _disc(2)) > 0]] = True
    before[labels[carried]] = True
    area = np.count_nonzero(mask)
    large = stats[:, cv2.CC_STAT_AREA] > 0.1 * area
    near = np.zeros(count, bool)
    near[labels[_signed_distance(mask) > -LOST * np.sqrt(area)]] = True
    return (alike > 0) & ((~touches & (large | ~near)) | (before & large))[labels]


class _Colours:
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
        ring = cv2.dilate(mask.astype(np.uint8), _disc(reach)).astype(bool)
        ring &= ~cv2.dilate(mask.astype(np.uint8), _disc(2)).astype(bool)
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


def _fit(
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
    inside = _signed_distance(carried)
    near = inside > -reach
    if cues is not None:
        near |= (cues.differs > 0) & (inside > -FAR_REACH * side)
    if apart.any():
        near &= inside > _signed_distance(apart)
    mask = _cut_out(frame, evidence + prior * (inside / reach).clip(-1, 1), near)
    mask = _without_specks(touching(mask, carried))
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
    inside = _signed_distance(mask)
    means = []
    for weight in (np.where(inside > 1.5, 1, 0.05) * mask, inside < -1.5):
        weight = weight.astype(np.float32)
        total = cv2.GaussianBlur(weight, (0, 0), 3) + 1e-6
        means.append(cv2.GaussianBlur(lab * weight[..., None], (0, 0), 3) / total[..., None])
    own, other = means
    across = own - other
    contrast = (across**2).sum(-1)
    share = ((lab - other) * across).sum(-1) / np.maximum(contrast, 1e-6)
    told = (np.abs(inside) <= BAND) & (contrast > CONTRAST**2)
    return _without_specks(np.where(told, share > 0.5, mask))


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """float32 [H, W]: pixels to the mask's outline, positive inside."""
    found = mask.astype(np.uint8)
    return cv2.distanceTransform(found, cv2.DIST_L2, 3) - cv2.distanceTransform(1 - found, cv2.DIST_L2, 3)


def _along_edges(frame: np.ndarray, values: np.ndarray, radius: int = 4, eps: float = 1e-3) -> np.ndarray:
    """Values smoothed where the picture is smooth, and not over its edges (the guided filter of He et al.,
    with the picture's lightness and colour in turn as guides)."""
    smoothed = np.zeros_like(values)
    lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB).astype(np.float32) / 255
    for guide in cv2.split(lab * np.float32([1, 2, 2])):
        mean = lambda image: cv2.blur(image, (2 * radius + 1,) * 2)  # noqa: E731
        low, level = mean(guide), mean(values)
        slope = (mean(guide * values) - low * level) / (mean(guide * guide) - low * low + eps)
        smoothed += mean(slope) * guide + mean(level - slope * low)
    return smoothed / 3


def _grab(frame: np.ndarray, trimap: np.ndarray, iterations: int) -> np.ndarray:
    """GrabCut around the trimap's unknown part; bool [H, W]."""
    rows, columns = np.nonzero(trimap != cv2.GC_BGD)
    if not len(rows):
        return np.zeros(trimap.shape, bool)
    margin = 12 + (max(np.ptp(rows), np.ptp(columns)) // 6)
    top, left = max(rows.min() - margin, 0), max(columns.min() - margin, 0)
    place = np.s_[top : rows.max() + margin + 1, left : columns.max() + margin + 1]
    part = trimap[place]
    foreground = (part == cv2.GC_FGD) | (part == cv2.GC_PR_FGD)
    if foreground.all() or not foreground.any():
        return trimap == cv2.GC_FGD
    mask = np.zeros(trimap.shape, bool)
    mask[place] = grab_cut(frame[place], part, iterations)
    return mask


def _without_specks(mask: np.ndarray, least: float = 0.005) -> np.ndarray:
    """The largest piece of a mask, and those of at least a share of its area."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    return np.isin(labels, 1 + np.nonzero(areas >= least * areas.max())[0])


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
