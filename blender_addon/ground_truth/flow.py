"""Where the first frame shows what each later frame shows of a subject's surface.

The mesh tells which point of the surface is seen at a pixel, and where that point was in the first frame.
What the first frame hides takes the picture of what is most like it: of the point across the subject's own
mirror plane, or of the nearest one.
"""

from __future__ import annotations

import numpy as np
from mathutils.kdtree import KDTree

from ..shared.messages import FLOW_STEPS, NO_FLOW
from .skinning import Skinning
from .triangles import Camera, Seen, area, towards

NEAR = 0.01
"""A point this fraction of the subject's size behind what the first frame shows is hidden there."""
FACING = 0.2
"""Cosine from which on a surface faces the camera enough to lend its picture."""
MIRRORED = 0.02
"""A point has a mirror image when a vertex lies this fraction of the subject's size from it."""
SYMMETRIC = 0.7
"""A subject is its own mirror image where this fraction of its points have one."""


class FirstView:
    """What the first frame shows of one surface: `camera` and `nearness` [h, w] are the picture's, `points`
    [V, 3] the surface's vertices in world space."""

    def __init__(self, camera: Camera, nearness: np.ndarray, points: np.ndarray, skinning: Skinning):
        self.make = skinning.make
        self._camera = camera
        self._nearness = nearness
        self._points = points
        self._rest = points if skinning.rest is None else skinning.rest
        self._size = float(np.linalg.norm(np.ptp(points, axis=0))) if len(points) else 0.0
        self._places = camera.see(points).corners[:, :2]
        self._lent: tuple[np.ndarray | None, np.ndarray] = (None, np.zeros(0, np.int64))

    def trace(
        self,
        kept: np.ndarray,
        triangles: np.ndarray,
        vertices: np.ndarray,
        shares: np.ndarray,
        turned: np.ndarray,
    ) -> np.ndarray:
        """[P, 2] pixels of the first frame in which points are shown that are mixtures of three `vertices`
        [P, 3] by `shares` [P, 3], not a number where there are none. Vertices, and `triangles` [T, 3], are
        counted among the `kept` ones [n]; `turned` [P] is the sign of each triangle's area as it is seen
        now."""
        if self._lent[0] is not kept:
            self._lent = kept, self._lend(kept, triangles)
        corners = kept[vertices]
        points = np.einsum("pk,pkc->pc", shares.astype(np.float32), self._points[corners])
        seen = self._camera.see(points)
        places = seen.corners[:, :2].copy()
        hidden = np.flatnonzero(~self._shown(points, seen) | (np.sign(area(self._places[corners])) != turned))
        lent = self._lent[1][vertices[hidden, shares[hidden].argmax(axis=1)]]
        places[hidden] = np.where(lent[:, None] >= 0, self._places[lent], np.nan)
        return places

    def _shown(self, points: np.ndarray, seen: Seen) -> np.ndarray:
        """[P] bool: which points [P, 3], seen by the first frame's camera, lie on the surface that it
        shows."""
        height, width = self._nearness.shape
        column, row = np.floor(np.nan_to_num(np.clip(seen.corners[:, :2], -1, 1e5))).astype(np.int64).T
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (seen.height >= 0)
        there = np.full(len(points), np.inf)
        there[inside] = self._nearness[row[inside], column[inside]]
        return inside & (self._camera.behind(seen.corners[:, 2], there) < NEAR * self._size)

    def _lend(self, kept: np.ndarray, triangles: np.ndarray) -> np.ndarray:
        """[n] the vertex whose picture each of those kept takes: itself where it is shown well, -1 where
        there is none."""
        points, rest = self._points[kept], self._rest[kept]
        seen = self._camera.see(points)
        a, b, c = (points[triangles[:, k]] for k in range(3))
        facing = np.cross(b - a, c - a)
        normals = np.zeros((len(kept), 3))
        for corner in range(3):
            for axis in range(3):
                normals[:, axis] += np.bincount(triangles[:, corner], facing[:, axis], len(kept))
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        cosine = np.einsum("vc,vc->v", normals, towards(self._camera.place, points))
        shown = self._shown(points, seen)
        if cosine[shown].sum() < 0:  # triangles run the other way round: what is shown faces the camera
            cosine = -cosine
        lenders = np.flatnonzero(shown & (cosine > FACING))
        lent = np.full(len(kept), -1)
        if not len(lenders):
            return lent
        lent[lenders] = lenders
        tree = _tree(rest[lenders], lenders)
        symmetric = _is_symmetric(rest)
        borrowers = np.flatnonzero(lent < 0)
        for vertex, place in zip(borrowers.tolist(), rest[borrowers].tolist()):
            _, nearest, away = tree.find(place)
            if symmetric:
                _, other, across = tree.find((-place[0], place[1], place[2]))
                nearest = other if across < away else nearest
            lent[vertex] = nearest
        return np.where(lent >= 0, kept[lent], -1)


def _tree(points: np.ndarray, numbers: np.ndarray) -> KDTree:
    tree = KDTree(len(points))
    for place, number in zip(points.tolist(), numbers.tolist()):
        tree.insert(place, number)
    tree.balance()
    return tree


def _is_symmetric(points: np.ndarray) -> bool:
    """Whether points [n, 3] are their own mirror image across x = 0."""
    tree = _tree(points, np.arange(len(points)))
    size = float(np.linalg.norm(np.ptp(points, axis=0)))
    sample = points[:: max(1, len(points) // 200)] * (-1, 1, 1)
    away = np.array([tree.find(place)[2] for place in sample.tolist()])
    return bool((away < MIRRORED * size).mean() > SYMMETRIC)


def quantise(flow: np.ndarray) -> np.ndarray:
    """Flow in pixels, NaN for none, as int16."""
    return np.where(
        np.isfinite(flow), np.clip(np.rint(flow * FLOW_STEPS), NO_FLOW + 1, -NO_FLOW - 1), NO_FLOW
    ).astype(np.int16)
