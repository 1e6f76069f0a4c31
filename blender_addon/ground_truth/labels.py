"""Which limb owns each pixel, from the skinned meshes: the nearest surface wins, and there the limb with
the most weight.

Fast because nothing is rendered. Vertices are copied from the evaluated mesh as one block, projected by one
matrix product, drawn by `zbuffer.ZBuffer` with nothing but the triangle's number, and only the pixels that
are left look up vertices and weights; weights themselves, the one thing that Blender hands out vertex by
vertex, are read once a clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import bpy
import numpy as np

from ..rig.skin import FLESH_TYPES, read_points, read_triangles
from ..view.projection import Projector
from .surfaces import Surface, SurfaceReader, evaluated_mesh, instanced, is_instancer, rendered_objects
from .visibility import is_shown
from .zbuffer import ZBuffer

SAMPLES = 2
"""Samples along each side of a part map's cell; the cell has the label that most of them have."""
BATCH = 60_000
"""Triangles looked at before somebody else may go on."""
MAX_OCCLUDING = 200_000
"""Triangles in front of the subjects that are looked at in a frame, the nearest objects' first."""


class Labeller:
    """Draws label maps of a clip: limb index + 1 for each pixel, 0 for what belongs to no limb.

    `surfaces` are the subjects' meshes; other meshes of the scene that are in front of them leave 0.
    `placed` are the subjects' triangles [T, 3] and points [V, 3] in world space, as they were last drawn.
    """

    def __init__(self, surfaces: Sequence[Surface], reader: SurfaceReader, depsgraph: bpy.types.Depsgraph):
        self._surfaces = surfaces
        self._reader = reader
        self._own = {surface.obj for surface in surfaces}
        others = [obj for obj in rendered_objects(depsgraph) if obj.mode != "EDIT"]
        self._others = [obj for obj in others if obj not in self._own and obj.type in FLESH_TYPES]
        self._instancers = {obj for obj in others if is_instancer(obj)} - self._own
        self._instancers -= {
            surface.subject.instancers[0] for surface in surfaces if surface.subject.instancers
        }
        self._boxes: dict[bpy.types.Object, np.ndarray] = {}
        self._triangles: dict[bpy.types.Object, tuple[tuple[int, int], np.ndarray]] = {}

    def draw(self, depsgraph: bpy.types.Depsgraph, projector: Projector, stride: int = 1) -> Iterator[None]:
        """The label map of the current frame, seen through a one-frame projector at 1/stride of its size.

        What is needed of the scene is copied at once; the generator that comes back draws it, pausing on
        the way, and returns [height / stride, width / stride] uint8 (rounded up)."""
        samples = 1 if stride == 1 else SAMPLES
        fit = projector.fit
        height, width = -(-fit.height // stride) * samples, -(-fit.width // stride) * samples
        camera = Camera.of(projector, samples / stride)
        subjects = []
        for surface in self._surfaces:
            if not is_shown(surface.obj, depsgraph):
                continue
            shape = surface.shape(depsgraph)
            if shape.make != surface.make:
                for _ in self._reader.read(surface, lambda: depsgraph):
                    pass
            subjects.append((surface, shape.points, shape.world))
        self.placed = [
            (surface.triangles, points @ world[:3, :3].T.astype(np.float32) + world[:3, 3].astype(np.float32))
            for surface, points, world in subjects
        ]
        boxes = [_box(points, world) for _, points, world in subjects]
        window = camera.window(boxes, width, height) if boxes else (0, 0, 0, 0)
        farthest = camera.farthest(np.concatenate(boxes)) if boxes else 0.0
        occluders = self._occluders(depsgraph, camera, window, farthest)
        return self._paint(camera, subjects, occluders, ZBuffer(width, height), window, samples)

    def _paint(
        self, camera: Camera, subjects, occluders, buffer: ZBuffer, window, samples: int
    ) -> Iterator[None]:
        yield
        drawn, number = [], 0
        for surface, points, world in subjects:
            seen = camera.see(points, world)
            drawn.append((surface, seen.homogeneous, number))
            yield from draw_triangles(buffer, seen, surface.triangles, number, window)
            number += len(surface.triangles)
        for triangles, points, world in occluders:
            yield from draw_triangles(buffer, camera.see(points, world), triangles, number, window)
            number += len(triangles)

        labels = np.zeros(buffer.height * buffer.width, np.uint8)
        for surface, homogeneous, first in drawn:
            inside = (buffer.triangle >= first) & (buffer.triangle < first + len(surface.triangles))
            for pixels in _batches(np.flatnonzero(inside)):
                triangle = buffer.triangle[pixels] - first
                labels[pixels] = _label(surface, homogeneous, triangle, pixels, buffer.width)
                yield
        labels = labels.reshape(buffer.height, buffer.width)
        return labels if samples == 1 else _most_frequent(labels, samples)

    def _occluders(
        self, depsgraph, camera: Camera, window, farthest: float
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Triangles [T, 3], points [V, 3] and world matrix of what may stand in front of the subjects, whose
        depth is `farthest` at most."""
        if window[2] <= window[0] or window[3] <= window[1]:
            return []
        shown = [obj for obj in self._others if is_shown(obj, depsgraph)]
        placed = [obj.evaluated_get(depsgraph) for obj in shown]
        boxes = np.array([self._box_of(obj, at) for obj, at in zip(shown, placed)]).reshape(-1, 8, 3)
        worlds = np.array([obj.matrix_world for obj in placed], np.float64).reshape(-1, 4, 4)
        corners = boxes @ worlds[:, :3, :3].transpose(0, 2, 1) + worlds[:, None, :3, 3]
        nearest = camera.nearest_over(corners, window)
        nearest[nearest > farthest] = np.inf
        found, room = [], MAX_OCCLUDING
        for index in np.argsort(nearest)[: np.isfinite(nearest).sum()].tolist():
            with evaluated_mesh(shown[index], depsgraph) as mesh:
                if len(mesh.polygons) > room:
                    continue
                make = (len(mesh.vertices), len(mesh.polygons))
                before, triangles = self._triangles.get(shown[index], (None, None))
                if make != before:
                    triangles = read_triangles(mesh)
                    self._triangles[shown[index]] = make, triangles
                room -= len(triangles)
                found.append((triangles, read_points(mesh), worlds[index]))
        if self._instancers:
            for points, triangles in instanced(depsgraph, self._instancers).values():
                if len(triangles) <= room and np.isfinite(
                    camera.nearest_over(_box(points, np.eye(4))[None], window)
                ):
                    room -= len(triangles)
                    found.append((triangles, points, np.eye(4)))
        return found

    def _box_of(self, obj: bpy.types.Object, evaluated: bpy.types.Object) -> np.ndarray:
        """[8, 3] the box around an object in its own space; asking for it takes a while, so that of one
        without modifiers is kept."""
        kept = self._boxes.get(obj)
        if kept is None:
            kept = np.array(evaluated.bound_box, np.float64)
            if not obj.modifiers and getattr(obj.data, "shape_keys", None) is None:
                self._boxes[obj] = kept
        return kept


class _Seen:
    """Vertices as a camera sees them: `homogeneous` [V, 3] pixels, `corners` [V, 3] as `ZBuffer.draw` takes
    them, and `height` [V] in front of the near plane; where that is negative corners mean nothing, and not
    all is `whole`."""

    def __init__(self, homogeneous: np.ndarray, depth: np.ndarray, near: float, perspective: bool):
        self._perspective = perspective
        self._near = near
        self.homogeneous = homogeneous
        self.height = depth - near
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            nearness = 1 / depth if perspective else -depth
            self.corners = np.column_stack([homogeneous[:, :2] / homogeneous[:, 2:], nearness])
        self.whole = bool((self.height >= 0).all())
        # Between which pixel centres a vertex lies.
        self._cells = np.floor(np.clip(self.corners[:, :2], -30000, 30000) - 0.5).astype(np.int16)

    def cover(self, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Corners [n, 3, 3] of those of the triangles [T, 3] that may cover a pixel's centre, and which
        they are [n]. Those that cross the near plane are cut there, to one or two."""
        if self.whole:
            kept = np.flatnonzero(self._spread(triangles))
            return self.corners[triangles[kept]], kept
        in_front = (self.height >= 0)[triangles]
        count = in_front.sum(axis=1)
        kept = np.flatnonzero((count == 3) & self._spread(triangles))
        one, two = np.flatnonzero(count == 1), np.flatnonzero(count == 2)
        cut = [*self._cut(triangles[one], in_front[one])[:1], *self._cut(triangles[two], ~in_front[two])[1:]]
        return np.concatenate([self.corners[triangles[kept]], *cut]), np.concatenate([kept, one, two, two])

    def _spread(self, triangles: np.ndarray) -> np.ndarray:
        """Whether the corners lie on both sides of a column of pixel centres, and of a row."""
        (ax, ay), (bx, by), (cx, cy) = (self._cells[triangles[:, corner]].T for corner in range(3))
        return ((ax != bx) | (bx != cx)) & ((ay != by) | (by != cy))

    def _cut(self, triangles: np.ndarray, alone: np.ndarray) -> list[np.ndarray]:
        """Cut triangles [n, 3] at the near plane, of whose corners the one that is `alone` [n, 3] lies on one
        side: the piece on its side, and the two on the other, as corners [n, 3, 3] each."""
        order = (alone.argmax(axis=1)[:, None] + np.arange(3)) % 3
        around = np.take_along_axis(triangles, order, axis=1)
        corners = np.concatenate([self.homogeneous[around], self.height[around][..., None]], axis=2)
        a, b, c = np.moveaxis(corners, 1, 0)
        ab = a + (b - a) * (a[:, 3:] / (a[:, 3:] - b[:, 3:]))
        ac = a + (c - a) * (a[:, 3:] / (a[:, 3:] - c[:, 3:]))
        pieces = []
        for piece in ((a, ab, ac), (ab, b, c), (ab, c, ac)):
            flat = np.stack(piece, axis=1).reshape(-1, 4)
            seen = _Seen(flat[:, :3], flat[:, 3] + self._near, -np.inf, self._perspective)
            pieces.append(seen.corners.reshape(-1, 3, 3))
        return pieces


def _box(points: np.ndarray, world: np.ndarray) -> np.ndarray:
    """[8, 3] corners in world space of the box around object space points [V, 3]."""
    sides = np.stack([points.min(axis=0), points.max(axis=0)]) if len(points) else np.zeros((2, 3))
    corners = np.stack(np.meshgrid(*sides.T), axis=-1).reshape(8, 3)
    return corners @ world[:3, :3].T + world[:3, 3]


def draw_triangles(
    buffer: ZBuffer, seen: _Seen, triangles: np.ndarray, first: int, window=None
) -> Iterator[None]:
    """Draw triangles numbered from `first` on."""
    for begin in range(0, len(triangles), BATCH):
        corners, numbers = seen.cover(triangles[begin : begin + BATCH])
        yield from buffer.draw(corners, numbers + (begin + first), window)
        yield


class Camera:
    """What a projector of one frame sees, on a grid.

    `pixels` [3, 4] takes world points to homogeneous pixels of the grid, `depths` [4] to depth."""

    def __init__(self, pixels: np.ndarray, depths: np.ndarray, near: float, perspective: bool):
        self._matrix = np.vstack([pixels, depths])
        self._near = near
        self._perspective = perspective

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

    def see(self, points: np.ndarray, world: np.ndarray) -> _Seen:
        """Object space points [V, 3]."""
        matrix = (self._matrix @ world).astype(np.float32)
        seen = points @ matrix[:, :3].T + matrix[:, 3]
        return _Seen(seen[:, :3], seen[:, 3], self._near, self._perspective)

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


def _label(
    surface: Surface, homogeneous: np.ndarray, triangle: np.ndarray, pixel: np.ndarray, width: int
) -> np.ndarray:
    """[P] labels of pixels at which a surface's triangle is seen: the limb with the largest weight there."""
    vertices = surface.triangles[triangle]
    labels = surface.labels[vertices, 0]
    found = labels[:, 0].copy()
    mixed = np.flatnonzero((labels != labels[:, :1]).any(axis=1))
    if not len(mixed):
        return found
    vertices = vertices[mixed]
    # In homogeneous pixels the point seen is a mixture of the corners, also of those behind the camera.
    a, b, c = np.moveaxis(homogeneous[vertices], 1, 0)
    ray = np.column_stack([pixel[mixed] % width + 0.5, pixel[mixed] // width + 0.5, np.ones(len(mixed))])
    share = np.stack(
        [np.einsum("ij,ij->i", np.cross(u, v), ray) for u, v in ((b, c), (c, a), (a, b))], axis=1
    )
    share /= share.sum(axis=1, keepdims=True)
    label = surface.labels[vertices].reshape(len(mixed), -1)
    weight = (surface.weights[vertices] * np.clip(share, 0, 1)[:, :, None]).reshape(len(mixed), -1)
    together = ((label[:, :, None] == label[:, None, :]) * weight[:, None, :]).sum(axis=2)
    together[label == 0] = 0
    found[mixed] = label[np.arange(len(mixed)), together.argmax(axis=1)]
    return found


def _batches(indices: np.ndarray, size: int = 8_000) -> list[np.ndarray]:
    return [indices[begin : begin + size] for begin in range(0, len(indices), size)]


def _most_frequent(labels: np.ndarray, samples: int) -> np.ndarray:
    """The label that most samples of each cell have; none where less than half of them have any."""
    cells = [labels[row::samples, column::samples] for row in range(samples) for column in range(samples)]
    winner, most, covered = (
        np.zeros_like(cells[0]),
        np.zeros(cells[0].shape, np.int8),
        np.zeros(cells[0].shape, np.int8),
    )
    for candidate in cells:
        votes = np.zeros_like(most)
        for other in cells:
            votes += other == candidate
        votes[candidate == 0] = 0
        better = votes > most
        winner[better], most[better] = candidate[better], votes[better]
        covered += candidate > 0
    winner[covered * 2 < len(cells)] = 0
    return winner
