"""Smooth curves: values that wander from knot to knot, and the way that a creature goes along."""

from __future__ import annotations

import random

import numpy as np

FINE = 0.01
"""Of a way's spacing of knots, from one of its samples to the next."""


def spline(knots: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The Catmull-Rom spline through knots [K, ...] at places [N] from 0 (the first knot) to K - 1; beyond
    these it stays where it ends. Returns [N, ...]."""
    knots = np.asarray(knots, float)
    at = np.clip(at, 0, len(knots) - 1)
    number = np.minimum(at.astype(int), len(knots) - 2)
    share = (at - number).reshape(-1, *[1] * (knots.ndim - 1))
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    before, start, end, after = (padded[number + k] for k in range(4))
    square, cube = share**2, share**3
    return (
        start
        + 0.5 * (end - before) * share
        + (before - 2.5 * start + 2 * end - 0.5 * after) * square
        + 0.5 * (3 * (start - end) + after - before) * cube
    )


def wander(shuffle: random.Random, times: np.ndarray, every: float) -> np.ndarray:
    """A value between about -1 and 1 that goes smoothly from one drawn value to the next, `every` so much
    time [N]; returns [N]."""
    span = (times - times[0]) / every
    return spline(
        np.array([shuffle.uniform(-1, 1) for _ in range(int(span[-1]) + 3)]), span + shuffle.random()
    )


class Way:
    """A smooth way on the ground that begins at the origin along -Y, and goes straight on at both ends."""

    def __init__(self, shuffle: random.Random, length: float, bends: float):
        """`bends` is how far its knots lie aside, as a fraction of their spacing."""
        self._spacing = max(length, 1e-6) / 4
        across = [0.0] * 3 + [shuffle.uniform(-bends, bends) for _ in range(5)] + [0.0] * 2
        along = np.arange(-2, len(across) - 2)
        across[3] *= 0.5  # it sets off gently
        knots = np.stack([across, -along], axis=1) * self._spacing
        points = spline(knots, np.arange(0, len(knots) - 1 + FINE, FINE))
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        self._far = np.concatenate([[0], np.cumsum(steps)])
        begin = np.argmin(np.linalg.norm(points, axis=1))
        self._far -= self._far[begin]
        self._points = points - points[begin]

    def at(self, far: np.ndarray) -> np.ndarray:
        """The places [N, 2] after so many metres [N]; below 0 they lie before the origin."""
        place = np.stack([np.interp(far, self._far, axis) for axis in self._points.T], axis=1)
        beyond = far - np.clip(far, self._far[0], self._far[-1])
        return place + beyond[:, None] * (0, -1)

    def heading(self, far: np.ndarray) -> np.ndarray:
        """The angle about Z [N] from -Y to where it leads after so many metres [N]."""
        step = 0.1 * self._spacing
        x, y = (self.at(far + step) - self.at(far - step)).T
        return np.arctan2(x, -y)
