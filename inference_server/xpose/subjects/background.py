"""What lies behind a subject: how it moves with the camera, where a picture differs from the bare ground that
other frames show there, and what moves as the subject does."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

GAPS = (-16, -8, -4, 4, 8, 16)
"""The frames that one is compared with, counted from it."""
LEAST_SEEN = 2
"""In how many of them a place must be seen bare for its ground to be known."""
MARGIN = 0.02
"""Of the longer side: how far beside a mask the ground begins."""
AROUND = 0.06
"""Of the longer side: within which the ground moves alike, and has about the same colour."""
NOISE = 3.0
"""The least difference of a colour, in CIELAB of 8 bits, that can mean something."""
STEADY = 0.1
"""Pixels of half the size within which half of the ground stays where the camera stands still."""
LEAST_INLIERS = 0.3
"""Of the ground: what must agree on how the camera moves."""
LEAST_MOTION = 1.5
"""Pixels that a subject must move by against the ground for what stands still to be no part of it."""
STILL, RISE = 0.35, 0.2
"""Of the subject's motion: what moves so much may be either's; and from there to sure."""
SHADE = (-2.6, -0.5)
"""Stops of light that a shadow takes away."""
SKY = ((-0.05, 0.45), (-0.2, 0.4))
"""By how many stops less it takes of green than of red, and of blue than of green: the sky lights it."""
SHADED = -0.5
"""How sure it is that shade is ground."""
MOST_SHADED = 0.6
"""Of the subject: where more of it looks like shade, the subject is of that colour."""


SMALL = 300
"""Pixels of the longer side below which specks of noise are smaller."""


@dataclass(frozen=True, eq=False)
class Cues:
    """What a frame says beside its colours.

    differs: float32 [H, W], from the bare ground (1), or not (-1); 0 where the ground was never seen.
    moves: float32 [H, W], as the subject (1), or with the ground (-1); 0 where that can't be told.
    """

    differs: np.ndarray
    moves: np.ndarray


class Background:
    """A clip's frames, each seen from another's place.

    frames: uint8 [F][H, W, 3] RGB. masks: bool [F][H, W], about where the subject is; others: likewise, what
    hides the ground beside it.
    """

    def __init__(self, frames: list[np.ndarray], masks: list[np.ndarray], others: list[np.ndarray]):
        height, width = masks[0].shape
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._size, self._masks = (width, height), masks
        self._half = max(width // 2, 16), max(height // 2, 16)
        self._grid = np.stack(np.meshgrid(*map(np.arange, self._half)), 2).astype(np.float32)
        self._lab = [cv2.cvtColor(frame, cv2.COLOR_RGB2LAB) for frame in frames]
        self._grey = [cv2.resize(lab[..., 0], self._half, interpolation=cv2.INTER_AREA) for lab in self._lab]
        reach = max(round(MARGIN * max(width, height)), 1)
        near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
        hidden = [cv2.dilate(mask.astype(np.uint8), near) | other for mask, other in zip(masks, others)]
        self._bare = [255 * (1 - each) for each in hidden]
        self._beside = [cv2.resize(bare, self._half, interpolation=cv2.INTER_AREA) for bare in self._bare]
        self._to_first = [np.eye(3)]
        for number in range(1, len(frames)):
            self._to_first.append(self._to_first[-1] @ self._camera(number, number - 1, np.eye(3))[0])

    def cues(self, number: int) -> Cues:
        """Those of a frame."""
        lab, last = self._lab[number], len(self._lab) - 1
        away, plates, motions = [], [], {}
        for other in sorted({min(max(number + gap, 0), last) for gap in GAPS} - {number}):
            places, moved = self._seen_from(number, other)
            before = other < number
            motions[before] = np.maximum(motions[before], moved) if before in motions else moved
            seen = cv2.remap(
                self._lab[other], places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            bare = cv2.remap(self._bare[other], places, None, cv2.INTER_LINEAR)
            away.append(np.where(bare > 250, _difference(lab, seen), np.inf))
            plates.append(seen)
        # The ground that comes to be covered was seen before, or is seen later.
        moves = self._moving(number, np.minimum.reduce(list(motions.values())))
        far, seen, plate = _typical(np.stack(away), np.stack(plates))
        known = seen >= min(LEAST_SEEN, last)
        bare = known & (self._bare[number] > 0)
        noise = max(NOISE, 2 * float(np.median(far[bare]))) if bare.any() else NOISE
        differs = np.where(known, ((far - 3 * noise) / (2 * noise)).clip(-1, 1), 0).astype(np.float32)
        shade = _is_shade(lab, np.where(known[..., None], plate, self._ground(lab, bare)))
        mask = self._masks[number]
        if np.count_nonzero(shade & mask) < MOST_SHADED * max(np.count_nonzero(mask), 1):
            differs[shade] = np.minimum(differs[shade], SHADED)
        return Cues(cv2.medianBlur(differs, 3 if max(self._size) < SMALL else 5), moves)

    def _camera(self, number: int, other: int, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How a frame's ground lies in another, at half the size: [3, 3], the homography that most of it
        agrees with, and [h, w, 2], what flow says beyond that, from where `guess` leads."""
        warp = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        seen = cv2.warpPerspective(
            self._grey[other], guess, self._half, flags=warp, borderMode=cv2.BORDER_REPLICATE
        )
        beside = cv2.min(
            self._beside[number], cv2.warpPerspective(self._beside[other], guess, self._half, flags=warp)
        )
        flow = self._flow.calc(self._grey[number], seen, None)
        some = np.s_[2::5, 2::5]
        told = beside[some] > 200
        here, by = self._grid[some][told], flow[some][told]
        if len(here) < 30 or float(np.median(np.abs(by))) < STEADY:
            return guess, flow
        cv2.setRNGSeed(0)
        found, inliers = cv2.findHomography(here, here + by, cv2.RANSAC, 1.0)
        if found is None or inliers.mean() < LEAST_INLIERS:
            return guess, flow
        return guess @ found, flow - (self._moved(found) - self._grid)

    def _moved(self, way: np.ndarray) -> np.ndarray:
        return cv2.perspectiveTransform(self._grid.reshape(1, -1, 2), way).reshape(self._grid.shape)

    def _seen_from(self, number: int, other: int) -> tuple[np.ndarray, np.ndarray]:
        """[H, W, 2]: where a frame's ground is in another; and [h, w]: by how much what is there moves
        otherwise, in pixels of half the size. Nearer ground moves more: what the homography leaves is
        evened out beside the subject."""
        guess = np.linalg.inv(self._to_first[other]) @ self._to_first[number]
        way, left = self._camera(number, other, guess)
        ground = _evened(left.clip(-4, 4), self._beside[number] > 200, AROUND * max(self._half))
        moved = np.linalg.norm(left - ground, axis=2)
        places = cv2.perspectiveTransform((self._grid + ground).reshape(1, -1, 2), way)
        places = cv2.resize(places.reshape(self._grid.shape).astype(np.float32), self._size)
        scale = np.array(self._size, np.float32) / self._half
        return ((places + 0.5) * scale - 0.5).astype(np.float32), moved

    def _moving(self, number: int, motion: np.ndarray) -> np.ndarray:
        motion, mask = cv2.resize(2 * motion, self._size), self._masks[number]
        usual = float(np.median(motion[mask])) if mask.any() else 0.0
        if usual < LEAST_MOTION:
            return np.zeros_like(motion)
        return ((motion / usual - STILL) / RISE).clip(-1, 1)

    @staticmethod
    def _ground(lab: np.ndarray, bare: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3]: the colour of the bare ground around each pixel."""
        ground = _evened(lab.astype(np.float32), bare, AROUND * max(lab.shape[:2]))
        return ground.clip(0, 255).astype(np.uint8)


def _evened(values: np.ndarray, where: np.ndarray, sigma: float) -> np.ndarray:
    """float32 [H, W, C]: the mean of what is around each pixel, of those that count."""
    weight = where.astype(np.float32)
    total = cv2.GaussianBlur(weight, (0, 0), sigma) + 1e-4
    return cv2.GaussianBlur(values * weight[..., None], (0, 0), sigma) / total[..., None]


def _difference(lab: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """float32 [H, W]: from a picture to the nearest colour within a pixel of the same place in another."""
    kernel = np.ones((3, 3), np.uint8)
    beyond = cv2.max(cv2.subtract(lab, cv2.dilate(seen, kernel)), cv2.subtract(cv2.erode(seen, kernel), lab))
    return beyond.astype(np.float32) @ np.float32([1, 2, 2])


def _typical(away: np.ndarray, plates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The median [H, W] over those of [N, H, W] that are finite, how many these are, and the plate there."""
    order, seen = np.argsort(away, 0), np.isfinite(away).sum(0)
    chosen = np.take_along_axis(order, (seen // 2).clip(0, len(away) - 1)[None], 0)
    far = np.take_along_axis(away, chosen, 0)[0]
    return far, seen, np.take_along_axis(plates, chosen[..., None], 0)[0]


def _is_shade(lab: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """bool [H, W]: where a picture is what the ground would be in the shade."""
    stops = _stops(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)) - _stops(cv2.cvtColor(ground, cv2.COLOR_LAB2RGB))
    found = (stops.mean(-1) > SHADE[0]) & (stops.mean(-1) < SHADE[1])
    for channel, (low, high) in enumerate(SKY):
        less = stops[..., channel + 1] - stops[..., channel]
        found &= (less > low) & (less < high)
    return found


def _stops(rgb: np.ndarray) -> np.ndarray:
    """The light of sRGB, as a power of two."""
    return np.log2((np.arange(256) / 255) ** 2.2 + 0.003).astype(np.float32)[rgb]
