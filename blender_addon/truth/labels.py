"""Which limb owns each pixel, from the skinned meshes: the nearest surface wins, and there the limb with the most weight.

Fast because nothing is rendered. Vertices are copied from the evaluated mesh as one block, projected by one matrix
product, drawn by `zbuffer.ZBuffer` with nothing but the triangle's number, and only the pixels that are left look up
vertices and weights; weights themselves, the one thing that Blender hands out vertex by vertex, are read once a shot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import bpy
import numpy as np

from ..rig.skin import read_points
from ..view.projection import Projector
from .surfaces import Surface, SurfaceReader, is_seen, read_triangles
from .zbuffer import ZBuffer

SAMPLES = 2
"""Samples along each side of a part map's cell; the cell has the label that most of them have."""
MAX_OCCLUDING = 200_000
"""Triangles in front of the subjects that are looked at in a frame, the nearest objects' first."""


class Labeller:
    """Draws label maps of a shot: limb index + 1 for each pixel, 0 for what belongs to no limb.

    `surfaces` are the subjects' meshes; other meshes of the scene that are in front of them leave 0.
    """

    def __init__(self, surfaces: Sequence[Surface], reader: SurfaceReader, depsgraph: bpy.types.Depsgraph):
        self._surfaces = surfaces
        self._reader = reader
        own = {surface.obj for surface in surfaces}
        self._others = [
            obj
            for obj in depsgraph.view_layer.objects
            if obj.type == "MESH" and obj not in own and is_seen(obj, depsgraph)
        ]
        self._triangles: dict[bpy.types.Object, np.ndarray] = {}

    def draw(self, depsgraph: bpy.types.Depsgraph, projector: Projector, stride: int = 1) -> Iterator[None]:
        """The label map of the current frame, seen through a one-frame projector at 1/stride of its size; the generator's
        return value is [height / stride, width / stride] uint8 (rounded up)."""
        samples = 1 if stride == 1 else SAMPLES
        fit = projector.fit
        height, width = -(-fit.height // stride), -(-fit.width // stride)
        buffer = ZBuffer(width * samples, height * samples)
        to_grid = np.diag([samples / stride, samples / stride, 1.0]) @ projector.pixels[0]
        camera = _Camera(to_grid, projector.depths[0], float(projector.nears[0]), projector.lenses[0].perspective)

        meshes, offset = [], 0
        for surface in self._surfaces:
            mesh, world = surface.placed(depsgraph)
            if len(mesh.vertices) != len(surface.labels):
                yield from self._reader.read(surface, depsgraph)
                mesh, world = surface.placed(depsgraph)
            seen = camera.see(read_points(mesh), world)
            meshes.append((surface, seen, offset))
            yield from buffer.draw(*camera.triangles(seen, surface.triangles, offset))
            offset += len(surface.triangles)
        yield from self._hide(depsgraph, buffer, camera, offset)

        labels = np.zeros(height * width * samples * samples, np.uint8)
        for surface, seen, first in meshes:
            inside = (buffer.triangle >= first) & (buffer.triangle < first + len(surface.triangles))
            for pixels in _batches(np.flatnonzero(inside)):
                labels[pixels] = _label(surface, seen, buffer.triangle[pixels] - first, pixels, buffer.width)
                yield
        labels = labels.reshape(height * samples, width * samples)
        return labels if samples == 1 else _most_frequent(labels, samples)

    def _hide(self, depsgraph, buffer: ZBuffer, camera: _Camera, number: int) -> Iterator[None]:
        """Draw what may stand in front of the subjects, where they are."""
        window = buffer.box
        if not self._others or window[2] <= window[0]:
            return
        placed = [obj.evaluated_get(depsgraph) for obj in self._others]
        boxes = np.array([obj.bound_box for obj in placed], np.float64)
        worlds = np.array([obj.matrix_world for obj in placed], np.float64)
        corners = boxes @ worlds[:, :3, :3].transpose(0, 2, 1) + worlds[:, None, :3, 3]
        nearest = camera.nearest_over(corners, window)
        left = MAX_OCCLUDING
        for index in np.argsort(nearest).tolist():
            if not np.isfinite(nearest[index]):
                return
            mesh = placed[index].data
            triangles = self._triangles.get(self._others[index])
            if triangles is None or len(triangles) and triangles.max() >= len(mesh.vertices):
                if len(mesh.polygons) > left:
                    continue
                triangles = self._triangles[self._others[index]] = read_triangles(mesh)
            left -= len(triangles)
            if left < 0:
                return
            if len(triangles):
                seen = camera.see(read_points(mesh), worlds[index])
                yield from buffer.draw(*camera.triangles(seen, triangles, number), window)
                number += len(triangles)


class _Camera:
    """`pixels` [3, 4] takes world points to homogeneous pixels of the grid, `depths` [4] to depth."""

    def __init__(self, pixels: np.ndarray, depths: np.ndarray, near: float, perspective: bool):
        self._matrix = np.vstack([pixels, depths])
        self._near = near
        self._perspective = perspective

    def see(self, points: np.ndarray, world: np.ndarray) -> np.ndarray:
        """[V, 4] homogeneous x, y, w and depth of object space points [V, 3]."""
        matrix = self._matrix @ world
        return points @ matrix[:, :3].T + matrix[:, 3]

    def triangles(self, seen: np.ndarray, triangles: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
        """What `ZBuffer.draw` takes, numbered from `first` on: triangles behind the near plane left out, those that cross
        it cut to one or two, which keep their number."""
        in_front = seen[:, 3] >= self._near
        if in_front.all():
            return self._corners(seen)[triangles], np.arange(first, first + len(triangles))
        count = in_front[triangles].sum(axis=1)
        whole, cut = np.flatnonzero(count == 3), np.flatnonzero((count == 1) | (count == 2))
        pieces = [self._corners(seen)[triangles[whole]]]
        numbers = [whole]
        for number in cut.tolist():
            outline = self._cut(seen[triangles[number]])
            fan = [self._corners(np.array([outline[0], *pair])) for pair in zip(outline[1:-1], outline[2:])]
            pieces.append(np.array(fan))
            numbers.append(np.full(len(fan), number))
        return np.concatenate(pieces), np.concatenate(numbers) + first

    def _cut(self, corners: np.ndarray) -> list[np.ndarray]:
        outline = []
        for a, b in zip(corners, np.roll(corners, -1, axis=0)):
            above_a, above_b = a[3] - self._near, b[3] - self._near
            if above_a >= 0:
                outline.append(a)
            if (above_a >= 0) != (above_b >= 0):
                outline.append(a + (b - a) * (above_a / (above_a - above_b)))
        return outline

    def _corners(self, seen: np.ndarray) -> np.ndarray:
        """x, y and nearness; nonsense for points behind the near plane."""
        with np.errstate(divide="ignore", invalid="ignore"):
            nearness = 1 / seen[:, 3:] if self._perspective else -seen[:, 3:]
            return np.concatenate([seen[:, :2] / seen[:, 2:3], nearness], axis=1)

    def nearest_over(self, corners: np.ndarray, window) -> np.ndarray:
        """[n] the least depth of boxes [n, 8, 3] in world space; infinite for those beside the window or behind."""
        seen = corners @ self._matrix[:, :3].T + self._matrix[:, 3]
        depth = seen[..., 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            x, y = seen[..., 0] / seen[..., 2], seen[..., 1] / seen[..., 2]
        left, top, right, bottom = window
        beside = (x < left).all(axis=1) | (x > right).all(axis=1) | (y < top).all(axis=1) | (y > bottom).all(axis=1)
        crossing = (depth < self._near).any(axis=1)
        behind = (depth < self._near).all(axis=1)
        return np.where(behind | (beside & ~crossing), np.inf, depth.min(axis=1))


def _label(surface: Surface, seen: np.ndarray, triangle: np.ndarray, pixel: np.ndarray, width: int) -> np.ndarray:
    """[P] labels of pixels at which a surface's triangle is seen: the limb with the largest weight there."""
    vertices = surface.triangles[triangle]
    labels = surface.labels[vertices, 0]
    found = labels[:, 0].copy()
    mixed = np.flatnonzero((labels != labels[:, :1]).any(axis=1))
    if not len(mixed):
        return found
    vertices = vertices[mixed]
    # In homogeneous pixels the point seen is a mixture of the corners, also of those behind the camera.
    a, b, c = np.moveaxis(seen[vertices, :3], 1, 0)
    ray = np.column_stack([pixel[mixed] % width + 0.5, pixel[mixed] // width + 0.5, np.ones(len(mixed))])
    share = np.stack([np.einsum("ij,ij->i", np.cross(u, v), ray) for u, v in ((b, c), (c, a), (a, b))], axis=1)
    share /= share.sum(axis=1, keepdims=True)
    label = surface.labels[vertices].reshape(len(mixed), -1)
    weight = (surface.weights[vertices] * np.clip(share, 0, 1)[:, :, None]).reshape(len(mixed), -1)
    together = ((label[:, :, None] == label[:, None, :]) * weight[:, None, :]).sum(axis=2)
    together[label == 0] = 0
    found[mixed] = label[np.arange(len(mixed)), together.argmax(axis=1)]
    return found


def _batches(indices: np.ndarray, size: int = 40_000) -> list[np.ndarray]:
    return [indices[begin : begin + size] for begin in range(0, len(indices), size)]


def _most_frequent(labels: np.ndarray, samples: int) -> np.ndarray:
    """The label that most samples of each cell have; none where less than half of them have any."""
    height, width = labels.shape[0] // samples, labels.shape[1] // samples
    cells = labels.reshape(height, samples, width, samples).transpose(0, 2, 1, 3).reshape(height, width, -1)
    votes = (cells[..., :, None] == cells[..., None, :]).sum(axis=3) * (cells > 0)
    winner = np.take_along_axis(cells, votes.argmax(axis=2)[..., None], axis=2)[..., 0]
    return np.where((cells > 0).sum(axis=2) * 2 >= cells.shape[2], winner, 0).astype(np.uint8)
