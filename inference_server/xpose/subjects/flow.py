"""`flow`: a subject without weights, from a box, clicks, a scribble or a mask, or found by its motion; cut
out by GrabCut, and followed by optical flow and its colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ..stages import Clip, Dropped, Subject, SubjectFinder, Verdict
from .background import Background
from .first_frame import LEAST_PIXELS, find_mask, may_be, moving_mask
from .outline import REACH, Colours, disc, fit_mask, refined, scaled_mask, signed_distance, weighed

JUMP = 2.5
"""How much worse than usual flow must explain a frame for the outline to be sought further away."""
LOST = 0.3
"""In the same unit: how far away a lost part, such as a leg that was hidden, lies at most."""
FARTHEST = 0.35
"""Of the longer side: how far a jump may take the subject."""
COARSE = 0.6
"""The scale at which masks are found first, to see from them what lies behind."""


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
        first = find_mask(frames, clip.prompt) if clip.prompt.says_where else moving_mask(frames)
        if first is None:
            raise Dropped(
                "No single thing moves against the background; say where the subject is by a box or a click."
            )
        small = find_masks(frames, first, may_be(clip.prompt, *size), clip.watch)
        masks = np.zeros(clip.frames.shape[:3], bool)
        for mask, found in zip(masks, small):
            if found.any():
                mask[:] = scaled_mask(found, width, height)
        return Subject(masks, verdict.category or clip.prompt.text)


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
    masks, others = follow(coarse, scaled_mask(first, *small), watch=count)
    for images in (coarse, frames):
        height, width = images[0].shape[:2]
        scaled = [[scaled_mask(mask, width, height) for mask in each] for each in (masks, others)]
        behind = Background(images, *scaled)
        begin = scaled_mask(first if given else masks[0], width, height)
        if not given:
            begin = refined(images[0], begin, ~scaled_mask(may, width, height), behind.cues(0))
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
    colours = Colours(frames[0], first, cues)
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
        cues = behind and behind.cues(number)
        evidence = colours.evidence(frame)
        back = grid + dis.calc(grey, last, None)
        carried, missed = _carried(masks[-1], back, last, grey)
        if missed > _most_missed([*misses, missed]):
            start = np.full_like(grid, -_jumped_by(last, grey, masks[-1]))
            again = grid + dis.calc(grey, last, start)
            found, rest = _carried(masks[-1], again, last, grey)
            if _mean(evidence, found) > _mean(evidence, carried):
                back, carried, missed = again, found, rest
        misses.append(missed)
        jump = missed > _most_missed(misses)
        apart = _moved(others[-1].astype(np.float32), back) > 0.5
        mask = fit_mask(frame, weighed(evidence, cues), carried, apart, cues, 3 * REACH if jump else REACH)
        others.append(_others(_along_edges(frame, evidence), mask, apart))
        colours.learn(frame, mask, cues)
        masks.append(mask)
        last = grey
    return masks, others


def _carried(
    mask: np.ndarray, back: np.ndarray, last: np.ndarray, grey: np.ndarray
) -> tuple[np.ndarray, float]:
    """A mask of the grey frame before, moved by where each pixel was in it, [H, W, 2], and by how many grey
    levels this frame differs there from what was moved."""
    carried = _moved(mask.astype(np.float32), back) > 0.5
    return carried, _mean(cv2.absdiff(_moved(last, back), grey), carried)


def _most_missed(misses: list[float]) -> float:
    """By how much a frame may be missed that is none after a jump."""
    return JUMP * max(float(np.median(misses)), 2)


def _moved(image: np.ndarray, back: np.ndarray) -> np.ndarray:
    return cv2.remap(image, back, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _mean(values: np.ndarray, mask: np.ndarray) -> float:
    """Of the values in a mask; 0 where that is empty."""
    return float(values[mask].mean()) if mask.any() else 0.0


def _jumped_by(last: np.ndarray, grey: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(x, y) in whole pixels: by how much what the mask covers of one grey frame is found elsewhere in the
    next, by its looks. Flow follows steps smaller than the subject; a jolt of the camera is larger."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    place = np.s_[top : top + height, left : left + width]
    reach = round(FARTHEST * max(mask.shape))
    around = cv2.copyMakeBorder(grey, *4 * (reach,), cv2.BORDER_REPLICATE)
    around = around[top : top + height + 2 * reach, left : left + width + 2 * reach]
    misfit = cv2.matchTemplate(around, last[place], cv2.TM_SQDIFF, mask=mask[place].astype(np.uint8))
    row, column = np.unravel_index(misfit.argmin(), misfit.shape)
    return np.array([column - reach, row - reach], np.float32)


def _others(evidence: np.ndarray, mask: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """bool [H, W]: what has the subject's colours but is not the subject: it does not touch it or was not it
    before, and is too large or too far away to be a part that was lost."""
    alike = ((evidence > 0) & ~mask).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(alike)
    touches, before = np.zeros(count, bool), np.zeros(count, bool)
    touches[labels[cv2.dilate(mask.astype(np.uint8), disc(2)) > 0]] = True
    before[labels[carried]] = True
    area = np.count_nonzero(mask)
    large = stats[:, cv2.CC_STAT_AREA] > 0.1 * area
    near = np.zeros(count, bool)
    near[labels[signed_distance(mask) > -LOST * np.sqrt(area)]] = True
    return (alike > 0) & ((~touches & (large | ~near)) | (before & large))[labels]


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
