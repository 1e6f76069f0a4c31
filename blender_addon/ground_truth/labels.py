"""Which limb owns each pixel, from the skinned meshes: the nearest surface wins, and there the limb with
the most weight.

Fast because nothing is rendered. Vertices are copied from the evaluated mesh as one block, projected by one
matrix product, drawn by `zbuffer.ZBuffer` with nothing but the triangle's number, and only the pixels that
are left look up vertices and weights; weights themselves, the one thing that Blender hands out vertex by
vertex, are read once a clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import bpy
import numpy as np

from ..rig.skin import FLESH_TYPES, read_points, read_triangles
from ..shared.messages import NO_FLOW
from ..view.projection import Projector
from .flow import FirstView, quantise
from .light import LightMeter, find_lights, find_sky
from .surfaces import (
    Detail,
    Shape,
    Surface,
    SurfaceReader,
    evaluated_mesh,
    instanced,
    is_instancer,
    rendered_objects,
)
from .triangles import Camera, Seen, area, draw_triangles, mixtures
from .visibility import is_shown
from .zbuffer import ZBuffer

SAMPLES = 2
"""Samples along each side of a part map's cell; the cell has the label that most of them have."""
CLOSER = 1.5
"""A subject that is seen so many times as large as before is looked at in more detail."""
MAX_OCCLUDING = 200_000
"""Triangles in front of the subjects that are looked at in a frame, the nearest objects' first."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a frame shows on a grid: `labels` [h, w] uint8, and `flow` [2, h, w] int16 on the samples of that
    grid, or None for the first frame: the way (x, y) from each sample to where the first frame shows the same
    surface, and `light` [h, w] uint8, both as `shared.messages.GenerationRequest` has them."""

    labels: np.ndarray
    flow: np.ndarray | None = None
    light: np.ndarray | None = None


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
        self._details: dict[Surface, tuple[tuple[int, int], Detail]] = {}
        self._first: dict[Surface, FirstView] = {}
        self._traced = False

    def draw(self, depsgraph: bpy.types.Depsgraph, projector: Projector, stride: int = 1) -> Iterator[None]:
        """What the current frame shows, seen through a one-frame projector at 1/stride of its size.

        What is needed of the scene is copied at once; the generator that comes back draws it, pausing on
        the way, and returns a `Drawn` of [height / stride, width / stride] cells (rounded up). The first
        frame is drawn first, at its full size: flow leads there."""
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
            if stride == 1:
                points = _placed(shape.points, shape.world)
                chosen = _Chosen(surface, points, surface.triangles, surface.labels, surface.weights)
            else:
                chosen = self._coarse(surface, shape, camera)
            subjects.append(chosen)
        self.placed = [(chosen.triangles, chosen.points) for chosen in subjects]
        boxes = [_box(chosen.points) for chosen in subjects if len(chosen.points)]
        window = camera.window(boxes, width, height) if boxes else (0, 0, 0, 0)
        farthest = camera.farthest(np.concatenate(boxes)) if boxes else 0.0
        occluders = self._occluders(depsgraph, camera, window, farthest)
        lighting = (find_lights(depsgraph), find_sky(depsgraph.scene)) if stride > 1 else None
        return self._paint(camera, subjects, occluders, ZBuffer(width, height), window, stride, lighting)

    def _coarse(self, surface: Surface, shape: Shape, camera: Camera) -> _Chosen:
        """As much of a surface as the camera's grid can show."""
        some = _placed(shape.points[:: max(1, len(shape.points) // 64)], shape.world)
        scale = camera.scale_at(some.mean(axis=0)) if len(some) else 1.0
        make, detail = self._details.get(surface, (None, None))
        if make != surface.make or scale > CLOSER * detail.scale:
            detail = Detail.of(_placed(shape.points, shape.world), surface.triangles, scale)
            self._details[surface] = surface.make, detail
        kept = detail.vertices
        return _Chosen(
            surface,
            _placed(shape.points[kept], shape.world),
            detail.triangles,
            surface.labels[kept],
            surface.weights[kept],
            kept,
            detail.outward,
        )

    def _paint(
        self,
        camera: Camera,
        subjects: list[_Chosen],
        occluders,
        buffer: ZBuffer,
        window,
        stride: int,
        lighting,
    ) -> Iterator[None]:
        yield
        drawn, number = [], 0
        for chosen in subjects:
            seen = camera.see(chosen.points, np.eye(4))
            drawn.append((chosen, seen, number))
            yield from draw_triangles(buffer, seen, chosen.triangles, number, window, chosen.outward)
            number += len(chosen.triangles)
        for triangles, points, world in occluders:
            yield from draw_triangles(buffer, camera.see(points, world), triangles, number, window)
            number += len(triangles)

        labels = np.zeros(buffer.height * buffer.width, np.uint8)
        flow = light = None
        if lighting is not None:
            flow, light = np.full((2, len(labels)), NO_FLOW, np.int16), np.zeros(len(labels), np.uint8)
            meter = LightMeter(*lighting, self.placed)
            yield
        for chosen, seen, first in drawn:
            inside = (buffer.triangle >= first) & (buffer.triangle < first + len(chosen.triangles))
            for pixels in _batches(np.flatnonzero(inside)):
                vertices = chosen.triangles[buffer.triangle[pixels] - first]
                mixed = mixtures(seen.homogeneous, vertices, pixels, buffer.width)
                labels[pixels] = _label(chosen, vertices, mixed)
                if flow is not None:
                    flow[:, pixels] = self._trace(chosen, seen, vertices, mixed, pixels, buffer.width, stride)
                    light[pixels] = meter.measure(*_facing(chosen.points[vertices], mixed, camera))
                yield
        labels = labels.reshape(buffer.height, buffer.width)
        if flow is not None:
            flow = flow.reshape(2, *labels.shape)
            return Drawn(_most_frequent(labels, SAMPLES), flow, light.reshape(labels.shape))
        nearness = buffer.nearness.reshape(buffer.height, buffer.width)
        for chosen in subjects:
            if not self._traced:
                self._first[chosen.surface] = FirstView(camera, nearness, chosen.points, chosen.surface)
        self._traced = True
        return Drawn(labels)

    def _trace(
        self, chosen: _Chosen, seen: Seen, vertices, mixed, pixels, width: int, stride: int
    ) -> np.ndarray:
        """[2, P] the flow of samples."""
        first = self._first.get(chosen.surface)
        if first is None or first.make != chosen.surface.make:
            return np.full((2, len(pixels)), NO_FLOW, np.int16)
        turned = np.sign(area(seen.corners[:, :2][vertices]))
        there = first.trace(chosen.vertices, chosen.triangles, vertices, mixed, turned)
        side = stride / SAMPLES
        here = np.column_stack([(pixels % width + 0.5) * side, (pixels // width + 0.5) * side])
        return quantise(there - here).T

    def _occluders(
        self, depsgraph, camera: Camera, window, farthest: float
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Triangles [T, 3], points [V, 3] and world matrix of what may stand in front of the subjects, whose
        depth is `farthest` at most."""
        if window[2] <= window[0] or window[3] <= window[1]:
            return []
        shown = [obj for obj in self._others if is_shown(obj, depsgraph)]
        if not shown:
            corners = np.zeros((0, 8, 3))
        else:
            corners = np.array([self._corners_of(obj, depsgraph) for obj in shown])
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
                world = np.array(shown[index].evaluated_get(depsgraph).matrix_world, np.float64)
                found.append((triangles, read_points(mesh), world))
        if self._instancers:
            for points, triangles in instanced(depsgraph, self._instancers).values():
                if 0 < len(triangles) <= room and np.isfinite(
                    camera.nearest_over(_box(points)[None], window)
                ):
                    room -= len(triangles)
                    found.append((triangles, points, np.eye(4)))
        return found

    def _corners_of(self, obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> np.ndarray:
        """[8, 3] the box around an object in world space; asking for it takes a while, so that of one which
        nothing moves or bends is kept."""
        kept = self._boxes.get(obj)
        if kept is None:
            evaluated = obj.evaluated_get(depsgraph)
            world = np.array(evaluated.matrix_world, np.float64)
            kept = np.array(evaluated.bound_box, np.float64) @ world[:3, :3].T + world[:3, 3]
            moved = obj.parent or obj.animation_data or len(obj.constraints) or obj.rigid_body
            bent = len(obj.modifiers) or getattr(obj.data, "shape_keys", None)
            if not moved and not bent and getattr(obj.data, "animation_data", None) is None:
                self._boxes[obj] = kept
        return kept


@dataclass(frozen=True, eq=False)
class _Chosen:
    """What is drawn of a surface: `points` [n, 3] in world space, and for each its labels and weights;
    `vertices` [n] are these points' numbers among all of the surface's, None when they are all."""

    surface: Surface
    points: np.ndarray
    triangles: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    vertices: np.ndarray | None = None
    outward: bool = False


def _placed(points: np.ndarray, world: np.ndarray) -> np.ndarray:
    """[V, 3] float32 where a matrix takes points [V, 3]."""
    world = world.astype(np.float32)
    return points @ world[:3, :3].T + world[:3, 3]


def _box(points: np.ndarray) -> np.ndarray:
    """[8, 3] corners of the box around points [V, 3]."""
    return np.stack(np.meshgrid(*np.stack([points.min(axis=0), points.max(axis=0)]).T), axis=-1).reshape(
        -1, 3
    )


def _facing(corners: np.ndarray, shares: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """[P, 3] points that are mixtures of three corners [P, 3, 3] by shares [P, 3], and the unit normals
    [P, 3] there, to the camera's side."""
    points = np.einsum("pk,pkc->pc", shares, corners)
    a, b, c = np.moveaxis(corners.astype(np.float64), 1, 0)
    normals = np.cross(b - a, c - a)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-18)
    away = (normals * camera.towards(points)).sum(axis=1) < 0
    normals[away] *= -1
    return points, normals


def _label(chosen: _Chosen, vertices: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """[P] labels of points that are mixtures of three vertices [P, 3] by shares [P, 3]: the limb with the
    largest weight there."""
    labels = chosen.labels[vertices, 0]
    found = labels[:, 0].copy()
    mixed = np.flatnonzero((labels != labels[:, :1]).any(axis=1))
    if not len(mixed):
        return found
    vertices = vertices[mixed]
    label = chosen.labels[vertices].reshape(len(mixed), -1)
    weight = (chosen.weights[vertices] * np.clip(shares[mixed], 0, 1)[:, :, None]).reshape(len(mixed), -1)
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
