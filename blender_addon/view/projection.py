"""From world space to pixels of the clip, and strokes cut to what can be seen of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..shared.pose import Limb, PoseSequence
from .camera import Lens
from .fit import Fit

MARGIN = 0.125
"""Strokes are cut this fraction of the longer side outside the picture, so that their ends are never seen."""


def to_pixels(fit: Fit) -> np.ndarray:
    """[3, 3] from normalised device coordinates (x, y, 1) to pixels of the clip (x to the right, y down,
    centres at .5)."""
    half_width, half_height = fit.scaled_width / 2, fit.scaled_height / 2
    return np.array(
        [[half_width, 0, half_width - fit.left], [0, -half_height, half_height - fit.top], [0, 0, 1]]
    )


class Projector:
    """The lenses of F frames over one fit, ready to project.

    `pixels` [F, 3, 4] takes homogeneous world points to homogeneous pixels, `depths` [F, 4] to the distance
    in front of the camera along its axis.
    """

    def __init__(self, lenses: Sequence[Lens], fit: Fit):
        self.fit = fit
        self.lenses = lenses
        views = np.stack([lens.view for lens in lenses])
        flat = np.stack([lens.projection[[0, 1, 3]] for lens in lenses])
        self.pixels = to_pixels(fit) @ flat @ views
        self.depths = -views[:, 2]
        self.nears = np.array([lens.near for lens in lenses])

    def project(self, points: np.ndarray) -> np.ndarray:
        """[F, K, 3] world points to x, y in pixels and depth. Points that are not in front of the near
        plane have a right depth and meaningless x and y."""
        homogeneous = points @ self.pixels[:, :, :3].transpose(0, 2, 1) + self.pixels[:, None, :, 3]
        depth = np.einsum("fkc,fc->fk", points, self.depths[:, :3]) + self.depths[:, None, 3]
        w = homogeneous[..., 2:]
        flat = homogeneous[..., :2] / np.where(np.abs(w) > 1e-12, w, 1e-12)
        return np.concatenate([flat, depth[..., None]], axis=2)

    def strokes(
        self, points: np.ndarray, counts: np.ndarray, limbs: Sequence[Limb], parts: Sequence[str]
    ) -> Iterator[None]:
        """Draw strokes whose joints are the `points` [F, K, 3] in world space, `counts[l]` consecutive ones
        for limb l, cut at the near plane and, with a margin, at the picture's edge, pausing after every
        frame; the generator's return value is the pose sequence."""
        fit = self.fit
        seen = self.project(points)
        left, top, right, bottom = self._bounds()
        x, y, depth = np.moveaxis(seen, 2, 0)
        whole = (x >= left) & (x <= right) & (y >= top) & (y <= bottom) & (depth >= self.nears[:, None])
        ends = np.cumsum(counts)
        begins = ends - counts
        spans = [slice(*span) for span in zip(begins.tolist(), ends.tolist())]
        whole = np.logical_and.reduceat(whole, begins, axis=1)

        pieces, owners, offsets = [], [], [0]
        for frame in range(len(points)):
            strokes = [seen[frame, span] for span in spans]
            if not whole[frame].all():
                strokes = [
                    [stroke] if inside else self._cut(frame, points[frame, span])
                    for stroke, inside, span in zip(strokes, whole[frame], spans)
                ]
                owners += [limb for limb, cut in enumerate(strokes) for _ in cut]
                strokes = [piece for cut in strokes for piece in cut]
            else:
                owners += range(len(counts))
            pieces += strokes
            offsets.append(len(pieces))
            yield
        return PoseSequence(
            width=fit.width,
            height=fit.height,
            parts=tuple(parts),
            limbs=tuple(limbs),
            points=np.concatenate(pieces).astype(np.float32) if pieces else np.zeros((0, 3), np.float32),
            lengths=np.array([len(piece) for piece in pieces], np.int32),
            owners=np.array(owners, np.uint8),
            offsets=np.array(offsets, np.int32),
        )

    def _bounds(self) -> tuple[float, float, float, float]:
        margin = MARGIN * max(self.fit.width, self.fit.height)
        return -margin, -margin, self.fit.width + margin, self.fit.height + margin

    def _cut(self, frame: int, path: np.ndarray) -> list[np.ndarray]:
        """The pieces [n, 3] in pixels and depth of a path [K, 3] in world space that lie within bounds.

        Every bound is a plane in world space, so that cutting there leaves straight strokes straight and
        depths right.
        """
        x, y, w = self.pixels[frame]
        near = self.depths[frame].copy()
        near[3] -= self.nears[frame]
        left, top, right, bottom = self._bounds()
        paths = [path]
        for plane in (near, x - left * w, right * w - x, y - top * w, bottom * w - y):
            paths = [piece for path in paths for piece in _cut_at_plane(path, path @ plane[:3] + plane[3])]
        pieces = []
        for path in paths:
            homogeneous = path @ self.pixels[frame, :, :3].T + self.pixels[frame, :, 3]
            depth = path @ self.depths[frame, :3] + self.depths[frame, 3]
            pieces.append(
                np.column_stack([homogeneous[:, :2] / np.maximum(homogeneous[:, 2:], 1e-12), depth])
            )
        return pieces


def _cut_at_plane(path: np.ndarray, heights: np.ndarray) -> list[np.ndarray]:
    """The pieces of a path [K, 3] where `heights` [K] over a plane, linear between its points, are not
    negative."""
    pieces: list[list[np.ndarray]] = []
    inside = heights >= 0
    if inside.all():
        return [path]
    for k, (point, height) in enumerate(zip(path, heights)):
        if k and inside[k] != inside[k - 1]:
            crossing = path[k - 1] + (point - path[k - 1]) * (heights[k - 1] / (heights[k - 1] - height))
            if inside[k]:
                pieces.append([crossing])
            else:
                pieces[-1].append(crossing)
        if inside[k]:
            if k == 0:
                pieces.append([])
            pieces[-1].append(point)
    return [np.array(piece) for piece in pieces if len(piece) > 1]
