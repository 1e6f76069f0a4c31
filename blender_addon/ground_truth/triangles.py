"""Triangles as a camera sees them, and how they are drawn into a `zbuffer.ZBuffer`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from .zbuffer import ZBuffer

BATCH = 60_000
"""Triangles looked at before somebody else may go on."""


class Seen:
    """Vertices as cameras see them: `homogeneous` [V, 3] pixels, `corners` [V, 3] as `ZBuffer.draw` takes
    them, and `height` [V] in front of the near plane; where that is negative corners mean nothing, and not
    all is `whole`. `near` is one number, or one for each vertex."""

    def __init__(self, homogeneous: np.ndarray, depth: np.ndarray, near, perspective: bool):
        self._perspective = perspective
        self._depth = depth
        self.homogeneous = homogeneous
        self.height = depth - near
        self.corners = self._flat(homogeneous, depth)
        self.whole = bool((self.height >= 0).all())

    def _flat(self, homogeneous: np.ndarray, depth: np.ndarray) -> np.ndarray:
        corners = np.empty((len(depth), 3), homogeneous.dtype)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            np.divide(homogeneous[:, :2], homogeneous[:, 2:], out=corners[:, :2])
            corners[:, 2] = 1 / depth if self._perspective else -depth
        return corners

    def cover(self, triangles: np.ndarray, outward: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Corners [n, 3, 3] of those of the triangles [T, 3] that may cover a pixel's centre, and which
        they are [n]. Those that cross the near plane are cut there, to one or two. Of a closed surface whose
        triangles run counterclockwise as seen from without (`outward`), only those that face the camera."""
        if self.whole:
            kept = np.flatnonzero(self._spread(triangles))
            corners = self.corners[triangles[kept]]
            if outward:
                facing = np.flatnonzero(area(corners[..., :2]) < 0)
                corners, kept = corners[facing], kept[facing]
            return corners, kept
        in_front = (self.height >= 0)[triangles]
        count = in_front.sum(axis=1)
        kept = np.flatnonzero((count == 3) & self._spread(triangles))
        one, two = np.flatnonzero(count == 1), np.flatnonzero(count == 2)
        cut = [*self._cut(triangles[one], in_front[one])[:1], *self._cut(triangles[two], ~in_front[two])[1:]]
        return np.concatenate([self.corners[triangles[kept]], *cut]), np.concatenate([kept, one, two, two])

    def _spread(self, triangles: np.ndarray) -> np.ndarray:
        """Whether the corners lie on both sides of a column of pixel centres, and of a row."""
        # Between which pixel centres a vertex lies.
        cells = np.floor(np.clip(self.corners[:, :2], -30000, 30000) - 0.5).astype(np.int16)
        (ax, ay), (bx, by), (cx, cy) = (cells[triangles[:, corner]].T for corner in range(3))
        return ((ax != bx) | (bx != cx)) & ((ay != by) | (by != cy))

    def _cut(self, triangles: np.ndarray, alone: np.ndarray) -> list[np.ndarray]:
        """Cut triangles [n, 3] at the near plane, of whose corners the one that is `alone` [n, 3] lies on one
        side: the piece on its side, and the two on the other, as corners [n, 3, 3] each."""
        order = (alone.argmax(axis=1)[:, None] + np.arange(3)) % 3
        around = np.take_along_axis(triangles, order, axis=1)
        cut = [self.homogeneous[around], self._depth[around][..., None], self.height[around][..., None]]
        a, b, c = np.moveaxis(np.concatenate(cut, axis=2), 1, 0)
        ab = a + (b - a) * (a[:, 4:] / (a[:, 4:] - b[:, 4:]))
        ac = a + (c - a) * (a[:, 4:] / (a[:, 4:] - c[:, 4:]))
        pieces = []
        for piece in ((a, ab, ac), (ab, b, c), (ab, c, ac)):
            flat = np.stack(piece, axis=1).reshape(-1, 5)
            pieces.append(self._flat(flat[:, :3], flat[:, 3]).reshape(-1, 3, 3))
        return pieces


def area(corners: np.ndarray) -> np.ndarray:
    """[n] twice the signed area of triangles [n, 3, 2]."""
    ax, ay = corners[:, 0, 0], corners[:, 0, 1]
    return (corners[:, 1, 0] - ax) * (corners[:, 2, 1] - ay) - (corners[:, 1, 1] - ay) * (
        corners[:, 2, 0] - ax
    )


def mixtures(homogeneous: np.ndarray, vertices: np.ndarray, pixel: np.ndarray, width: int) -> np.ndarray:
    """[P, 3] shares of the three `vertices` [P, 3] of the triangles seen at pixels, counted row by row, in
    the points seen there. In homogeneous pixels such a point is a mixture of the corners, also of those
    behind the camera."""
    a, b, c = np.moveaxis(homogeneous[vertices], 1, 0)
    x, y = pixel % width + 0.5, pixel // width + 0.5
    share = np.empty((len(pixel), 3))
    for k, (u, v) in enumerate(((b, c), (c, a), (a, b))):
        share[:, k] = (
            (u[:, 1] * v[:, 2] - u[:, 2] * v[:, 1]) * x
            + (u[:, 2] * v[:, 0] - u[:, 0] * v[:, 2]) * y
            + (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
        )
    share /= share.sum(axis=1, keepdims=True)
    return share


def draw_triangles(
    buffer: ZBuffer,
    seen: Seen,
    triangles: np.ndarray,
    numbers: np.ndarray,
    layers: np.ndarray | None = None,
    windows: np.ndarray | None = None,
    outward: bool = False,
) -> Iterator[None]:
    """Draw triangles [T, 3] under their `numbers` [T], as `ZBuffer.draw` and `Seen.cover` do."""
    for begin in range(0, len(triangles), BATCH):
        corners, kept = seen.cover(triangles[begin : begin + BATCH], outward)
        kept += begin
        yield from buffer.draw(corners, numbers[kept], None if layers is None else layers[kept], windows)
        yield


class Camera:
    """What a projector of one frame sees, on a grid.

    `pixels` [3, 4] takes world points to homogeneous pixels of the grid, `depths` [4] to depth."""

    def __init__(self, pixels: np.ndarray, depths: np.ndarray, near: float, perspective: bool):
        self._matrix = np.vstack([pixels, depths])
        self._near = near
        self._perspective = perspective

    @property
    def perspective(self) -> bool:
        return self._perspective

    @classmethod
    def of(cls, projector, zoom: float) -> Camera:
        """On a grid of `zoom` samples for each pixel."""
        to_grid = np.diag([zoom, zoom, 1.0]) @ projector.pixels[0]
        lens = projector.lenses[0]
        return cls(to_grid, projector.depths[0], float(projector.nears[0]), lens.perspective)

    def scale_at(self, place: np.ndarray) -> float:
        """How many samples a unit of length takes at a place [3] in world space, facing the camera."""
        row, w = self._matrix[0, :3], self._matrix[2]
        depth = float(w[:3] @ place + w[3]) if self._perspective else 1.0
        across = row - w[:3] * (row @ w[:3]) / max(float(w[:3] @ w[:3]), 1e-18) if self._perspective else row
        return float(np.linalg.norm(across)) / max(abs(depth), 1e-9)

    def see(self, points: np.ndarray, world: np.ndarray | None = None) -> Seen:
        """Points [V, 3] in world space, or in an object's that `world` takes there."""
        return see([self], [points], None if world is None else [world])

    @cached_property
    def place(self) -> np.ndarray:
        """[4] where it is, homogeneous: at infinity without perspective."""
        if not self._perspective:
            return np.append(-self._matrix[3, :3], 0.0)
        return np.append(np.linalg.solve(self._matrix[:3, :3], -self._matrix[:3, 3]), 1.0)

    def meet(self, pixels: np.ndarray, plane: np.ndarray) -> np.ndarray:
        """[n, 3] where what is seen at pixels [n, 2] of the grid would lie on a plane [4] in world space."""
        back = np.linalg.inv(np.vstack([self._matrix[:3], plane]))
        found = pixels @ back[:, :2].T + back[:, 2]
        return found[:, :3] / found[:, 3:]

    def behind(self, nearness: np.ndarray, other: np.ndarray) -> np.ndarray:
        """How far what has a nearness lies behind what has another one, in scene units."""
        if not self._perspective:
            return other - nearness
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 / nearness - 1 / other

    def window(self, boxes: list[np.ndarray], width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom (exclusive) of a rectangle of pixels around boxes [8, 3] in world space,
        within the picture."""
        flat, depth = self._flatten(np.concatenate(boxes))
        if (depth < self._near).any():
            return 0, 0, width, height
        low, high = np.floor(flat.min(axis=0)) - 1, np.ceil(flat.max(axis=0)) + 1
        (left, top), (right, bottom) = np.clip([low, high], 0, (width, height)).astype(int).tolist()
        return left, top, right, bottom

    def farthest(self, corners: np.ndarray) -> float:
        """The greatest depth of points [n, 3] in world space."""
        return float(self._flatten(corners)[1].max())

    def nearest_over(self, corners: np.ndarray, window) -> np.ndarray:
        """[n] the least depth of boxes [n, 8, 3] in world space; infinite for those beside the window or
        behind."""
        flat, depth = self._flatten(corners)
        beside = (flat < window[:2]).all(axis=1) | (flat > window[2:]).all(axis=1)
        behind = depth < self._near
        unseen = behind.all(axis=1) | (beside.any(axis=1) & ~behind.any(axis=1))
        return np.where(unseen, np.inf, depth.min(axis=1))

    def _flatten(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x, y in pixels and depth of points in world space."""
        seen = points @ self._matrix[:, :3].T + self._matrix[:, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            return seen[..., :2] / seen[..., 2:3], seen[..., 3]


def see(cameras: Sequence[Camera], points: Sequence[np.ndarray], worlds=None) -> Seen:
    """Points [V, 3] as each of cameras of one kind sees its own, one after the other; in world space, or in
    that of objects which `worlds` take there."""
    seen, nears = [], []
    for k, (camera, some) in enumerate(zip(cameras, points)):
        matrix = camera._matrix if worlds is None else camera._matrix @ worlds[k]
        matrix = matrix.astype(np.float32)
        seen.append(some @ matrix[:, :3].T + matrix[:, 3])
        nears.append(camera._near)
    joined = seen[0] if len(seen) == 1 else np.concatenate(seen)
    near = (
        nears[0]
        if len(set(nears)) == 1
        else np.repeat(np.array(nears, np.float32), [len(some) for some in points])
    )
    return Seen(joined[:, :3], joined[:, 3], near, cameras[0].perspective)


def stack_triangles(triangles: Sequence[np.ndarray], counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of several layers, of `counts` vertices each, as triangles of all their vertices, one layer
    after the other; and the layers that they are on."""
    begins = np.cumsum([0, *counts])
    stacked = np.concatenate([some + begin for some, begin in zip(triangles, begins)])
    return stacked, np.repeat(np.arange(len(triangles)), [len(some) for some in triangles])


def towards(places: np.ndarray, points: np.ndarray) -> np.ndarray:
    """[V, 3] unit vectors from points to homogeneous places [4] or [V, 4]."""
    out = places[..., :3] - places[..., 3:] * points
    return out / np.maximum(np.linalg.norm(out, axis=-1, keepdims=True), 1e-12)


def bounds(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest coordinates [..., 3] of points [..., V, 3], of which there are some."""
    # Over rows of three, numpy takes 25 times as long.
    across = np.ascontiguousarray(np.moveaxis(points, -1, 0))
    return np.moveaxis(across.min(axis=-1), 0, -1), np.moveaxis(across.max(axis=-1), 0, -1)
