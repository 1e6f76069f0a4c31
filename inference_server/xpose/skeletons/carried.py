"""`carried`: the first frame's skeleton, carried along and fitted into each mask.

Found anew in every frame, a skeleton's segments come and go where legs pass each other, and end elsewhere
each time. Whoever bends a picture by them needs the same limbs in all frames, each point of which stays on
the same place of the body. So the skeleton of the first frame is a chain of points here, which optical flow
moves; then it is drawn to the middle of the new mask and its tips to that skeleton's tips, while its
lengths stay and it bends as little as it must.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree

from shared.pose import MAX_LIMBS

from ...poseanything.conditioning.limbs.graph import curve_length, resample
from ...poseanything.conditioning.limbs.medial import MET, loose_ends, medial_curves
from ...poseanything.conditioning.masks import size_of
from ..stages import Clip, Curve, Dropped, Skeleton, Skeletoniser, Subject
from .matching import pose_of_segments

SPACING = 0.04
"""From one point of the chain to the next, as a share of the subject's size."""
REACH, TIP_REACH = 0.05, 0.07
"""How far a mask's middle, or a tip, draws a point, as shares of the subject's size."""
FLOW, MIDDLE, TIP, LENGTH, STRAIGHT = 1.0, 0.6, 1.5, 3.0, 0.6
"""How much counts that a point is where flow takes it, in the mask's middle, a tip at a tip; that a length
stays; that a point lies between its neighbours."""
ROUNDS = 12


@dataclass
class CarriedSkeletoniser(Skeletoniser):
    """The same segments in every frame.

    side: the longer side, in pixels, that the work is done at.
    """

    side: int = 416

    def trace(self, frames: np.ndarray, masks: np.ndarray) -> list[list[Curve]]:
        return self._carry(frames, masks, lambda frames: None)

    def extract(self, clip: Clip, subject: Subject) -> Skeleton:
        curves = self._carry(clip.frames, subject.masks, lambda done: clip.watch("skeleton", done))
        height, width = subject.masks.shape[1:]
        frames = [list(enumerate(own)) for own in curves]
        return Skeleton(pose_of_segments(width, height, max(map(len, curves)), frames))

    def _carry(
        self, frames: np.ndarray, masks: np.ndarray, watch: Callable[[int], None]
    ) -> list[list[Curve]]:
        """The segments of each frame, always in the same order; none where a mask is empty."""
        height, width = masks.shape[1:]
        scale = min(1.0, self.side / max(width, height))
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        back = np.array([width, height]) / size
        small = [cv2.resize(mask.astype(np.float32), size) > 0.5 for mask in masks]
        flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        chain, last, before = Chain.of(small[0]), _grey(frames[0], size), small[0]
        found = [chain.curves(back)]
        for index in range(1, len(frames)):
            watch(index)
            grey, mask = _grey(frames[index], size), small[index]
            way = flow.calc(last, grey, None)
            chain.move(way, before)
            if mask.any():
                # What is of one colour is not seen to flow; its mask tells.
                chain.points += _middle(mask) - _middle(before) - way[before].mean(0)
                chain.fit(mask)
                before = mask
            found.append(chain.curves(back) if mask.any() else [])
            last = grey
        watch(len(frames))
        return found


def _middle(mask: np.ndarray) -> np.ndarray:
    """(x, y) of the middle of a mask's area."""
    return np.argwhere(mask).mean(0)[::-1]


def _grey(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


@dataclass
class Chain:
    """Points (x, y) [N, 2] that are joined by edges [E, 2] of some lengths [E]; `segments` are the points
    along each segment. `size` is the subject's."""

    points: np.ndarray
    edges: np.ndarray
    segments: list[list[int]]
    size: float
    lengths: np.ndarray = field(init=False)
    tips: np.ndarray = field(init=False)

    def __post_init__(self):
        count = len(self.points)
        self.lengths = np.linalg.norm(self._along(self.points), axis=1)
        degrees = np.bincount(self.edges.ravel(), minlength=count)
        self.tips = np.flatnonzero(degrees == 1)
        difference = np.zeros((len(self.edges), count))
        rows = np.arange(len(self.edges))
        difference[rows, self.edges[:, 0]], difference[rows, self.edges[:, 1]] = 1, -1
        self._difference = difference
        neighbours = abs(difference).T @ abs(difference) - np.diag(degrees)
        bend = np.eye(count) - neighbours / 2
        bend[degrees != 2] = 0
        self._stiffness = LENGTH * difference.T @ difference + STRAIGHT * bend.T @ bend

    @classmethod
    def of(cls, mask: np.ndarray) -> Chain:
        """The skeleton of a mask. Raises `Dropped` where it has none."""
        size = size_of(mask)
        curves = medial_curves(mask)[:MAX_LIMBS] if size else []
        if not curves:
            raise Dropped("No skeleton was found in the first frame; point at the subject again.")
        points: list[np.ndarray] = []
        ends: dict[int, np.ndarray] = {}

        def end(place: np.ndarray) -> int:
            for index, known in ends.items():
                if np.linalg.norm(known - place) < MET:
                    return index
            ends[len(points)] = place
            points.append(place)
            return len(points) - 1

        segments = []
        for curve in curves:
            count = max(int(curve_length(curve) / (SPACING * size)), 2) + 1
            line = resample(curve.astype(float), count)
            first, inner = end(line[0]), []
            for place in line[1:-1]:
                inner.append(len(points))
                points.append(place)
            segments.append([first, *inner, end(line[-1])])
        edges = [pair for segment in segments for pair in zip(segment, segment[1:])]
        return cls(np.array(points), np.array(edges), segments, size)

    def curves(self, scale: np.ndarray) -> list[Curve]:
        return [(self.points[segment] * scale).astype(np.float32) for segment in self.segments]

    def move(self, flow: np.ndarray, mask: np.ndarray) -> None:
        """Take the points along with what of the subject flows around them: [H, W, 2] pixels."""
        height, width = mask.shape
        radius = distance_transform_edt(mask)
        for index, (x, y) in enumerate(self.points):
            row, column = int(np.clip(y, 0, height - 1)), int(np.clip(x, 0, width - 1))
            around = 1.2 * max(radius[row, column], 2.5)
            reach = int(2.5 * around) + 1
            window = (
                slice(max(row - reach, 0), row + reach + 1),
                slice(max(column - reach, 0), column + reach + 1),
            )
            inside = mask[window]
            rows = np.arange(inside.shape[0])[:, None] + window[0].start + 0.5
            columns = np.arange(inside.shape[1]) + window[1].start + 0.5
            near = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * around**2)) * inside
            if (total := near.sum()) > 1e-6:
                self.points[index] += (flow[window] * near[..., None]).sum((0, 1)) / total

    def fit(self, mask: np.ndarray) -> None:
        """Lay the points into a mask that isn't empty."""
        curves = medial_curves(mask)
        if not curves:
            return
        middle = np.concatenate([resample(curve, max(int(curve_length(curve)), 2) + 1) for curve in curves])
        tree, loose = KDTree(middle), loose_ends(curves)
        carried, places = self.points.copy(), self.points
        for _ in range(ROUNDS):
            far, nearest = tree.query(places)
            weight = MIDDLE * np.exp(-((far / (REACH * self.size)) ** 2))
            pull = FLOW * carried + weight[:, None] * middle[nearest]
            weight = weight + FLOW
            for point, place in self._met(places, loose):
                weight[point] += TIP
                pull[point] += TIP * place
            along = self._along(places)
            along *= (self.lengths / np.maximum(np.linalg.norm(along, axis=1), 1e-6))[:, None]
            pull += LENGTH * self._difference.T @ along
            places = np.linalg.solve(self._stiffness + np.diag(weight), pull)
        self.points = places

    def _along(self, points: np.ndarray) -> np.ndarray:
        return points[self.edges[:, 0]] - points[self.edges[:, 1]]

    def _met(self, places: np.ndarray, loose: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Which tip of the chain goes to which loose end: each to one at most, and none too far."""
        if not len(loose) or not len(self.tips):
            return []
        apart = np.linalg.norm(places[self.tips][:, None] - loose[None], axis=2)
        reach = TIP_REACH * self.size
        tips, ends = linear_sum_assignment(np.minimum(apart, 2 * reach))
        return [(self.tips[t], loose[e]) for t, e in zip(tips, ends) if apart[t, e] < reach]
