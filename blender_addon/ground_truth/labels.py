"""Which limb owns each pixel, from the skinned meshes: the nearest surface wins, and there the limb with
the most weight.

Fast because nothing is rendered. Vertices are copied from the evaluated mesh as one block, projected by one
matrix product, drawn by `zbuffer.ZBuffer` with nothing but the triangle's number, and only the pixels that
are left look up vertices and weights; weights themselves, the one thing that Blender hands out vertex by
vertex, are read once a clip. A frame is looked at while it is evaluated; frames that show the same surfaces
are drawn together, and which limbs there are may be decided after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import bpy
import numpy as np

from ..rig.skin import FLESH_TYPES, read_points, read_triangles
from ..rig.subjects import Subject
from ..shared.messages import NO_FLOW
from ..steps import at_once
from ..view.projection import Projector
from .flow import FirstView, quantise
from .light import Lighting, LightMeter, LightReader
from .surfaces import (
    Detail,
    Shape,
    Skinning,
    Surface,
    evaluated_mesh,
    instanced,
    is_instancer,
    is_still,
    rendered_objects,
)
from .triangles import Camera, area, draw_triangles, mixtures, see, stack_triangles, towards
from .visibility import is_shown
from .zbuffer import ZBuffer

SAMPLES = 2
"""Samples along each side of a part map's cell; the cell has the label that most of them have."""
CLOSER = 1.5
"""A subject that is seen so many times as large as before is looked at in more detail."""
MAX_OCCLUDING = 200_000
"""Triangles in front of the subjects that are looked at in a frame, the nearest objects' first."""
TOGETHER = 60_000
"""Triangles that are drawn together: of several frames, where one has fewer."""
LOOKED_UP = 8_000
"""Pixels that are looked up together, or those of one frame."""


@dataclass(frozen=True, eq=False)
class Sighting:
    """Where a frame shows the subjects on a grid of `shape` (rows, columns): for each surface its `skinning`,
    the `pixels` [P] int32, counted row by row, that show it, and the three `vertices` [P, 3] int32 and their
    `shares` [P, 3] float32 that are mixed there."""

    shape: tuple[int, int]
    surfaces: list[tuple[Skinning, np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a frame shows: a `sighting` of the subjects, `flow` [2, h, w] int16 on the same grid, or None for
    the first frame: the way (x, y) from each sample to where the first frame shows the same surface, and
    `light` [h, w] uint8, both as `shared.messages.GenerationRequest` has them."""

    sighting: Sighting
    flow: np.ndarray | None = None
    light: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Look:
    """What is needed of an evaluated frame to draw it on a grid of `shape` (rows, columns), `stride` pixels
    a cell: the `camera`, the subjects' surfaces, triangles [T, 3] and homogeneous vertices of what may stand
    in front of them, the `window` of the grid around the subjects, and the `lighting`."""

    camera: Camera
    shape: tuple[int, int]
    stride: int
    subjects: list[Chosen]
    occluders: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    window: tuple[int, int, int, int]
    lighting: Lighting | None

    @property
    def make(self) -> tuple:
        """What has to be the same of frames that are drawn together."""
        subjects = tuple((chosen.surface, chosen.triangles.ctypes.data) for chosen in self.subjects)
        lighting = self.lighting.make if self.lighting is not None else None
        return self.shape, self.stride, self.camera.perspective, subjects, lighting

    @property
    def cost(self) -> int:
        """How many triangles it has."""
        return sum(len(one.triangles) for one in self.subjects) + sum(len(t) for t, _, _ in self.occluders)


class Labeller:
    """Draws where the frames of a clip show the subjects' `surfaces`; other meshes of the scene that are in
    front of them hide them."""

    def __init__(self, surfaces: Sequence[Surface], depsgraph: bpy.types.Depsgraph):
        self._surfaces = surfaces
        self._skinnings: dict[Surface, Skinning] = {}
        self._own = {surface.obj for surface in surfaces}
        others = [obj for obj in rendered_objects(depsgraph) if obj.mode != "EDIT"]
        solid = [obj for obj in others if obj not in self._own and obj.type in FLESH_TYPES]
        self._moving = [obj for obj in solid if not is_still(obj)]
        self._still = [obj for obj in solid if is_still(obj) and is_shown(obj, depsgraph)]
        self._still_boxes = np.array([_corners_of(obj, depsgraph) for obj in self._still]).reshape(-1, 8, 3)
        self._still_shapes: dict[bpy.types.Object, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._instancers = {obj for obj in others if is_instancer(obj)} - self._own
        self._instancers -= {surface.rig.instancers[0] for surface in surfaces if surface.rig.instancers}
        self._triangles: dict[bpy.types.Object, tuple[tuple[int, int], np.ndarray]] = {}
        self._lights = LightReader(depsgraph)
        self._details: dict[Surface, tuple[tuple[int, int], Detail]] = {}
        self._first: dict[Surface, FirstView] = {}
        self._traced = False

    def read(self, frame: int, evaluated: Callable[[], bpy.types.Depsgraph]) -> Iterator[None]:
        """Read whose the vertices of the surfaces are, pausing often. `evaluated` gives the scene, at clip
        frame `frame`, anew after every pause, since others may have touched it. One that is not shown yet is
        read when it is. Raises `ExportError` when one was changed meanwhile."""
        for surface in self._surfaces:
            if is_shown(surface.obj, evaluated()):
                surface.shape(evaluated())  # some modifiers only run when the mesh is asked for
                yield
                self._skinnings[surface] = yield from Skinning.read(surface, frame, evaluated)

    def look(self, frame: int, depsgraph: bpy.types.Depsgraph, projector: Projector, stride: int = 1) -> Look:
        """Copy what is needed of the scene, evaluated at clip frame `frame` and seen through a one-frame
        projector, to draw a grid of [height / stride, width / stride] cells (rounded up)."""
        samples = 1 if stride == 1 else SAMPLES
        fit = projector.fit
        height, width = -(-fit.height // stride) * samples, -(-fit.width // stride) * samples
        camera = Camera.of(projector, samples / stride)
        subjects = []
        for surface in self._surfaces:
            if not is_shown(surface.obj, depsgraph):
                continue
            shape = surface.shape(depsgraph)
            skinning = self._skinnings.get(surface)
            if skinning is None or skinning.make != shape.make:
                skinning = self._skinnings[surface] = at_once(
                    Skinning.read(surface, frame, lambda: depsgraph)
                )
            if stride == 1:
                subjects.append(Chosen(skinning, _placed(shape.points, shape.world), surface.triangles))
            else:
                subjects.append(self._coarse(skinning, shape, camera))
        boxes = [_box(chosen.points) for chosen in subjects if len(chosen.points)]
        window = camera.window(boxes, width, height) if boxes else (0, 0, 0, 0)
        farthest = camera.farthest(np.concatenate(boxes)) if boxes else 0.0
        occluders = self._occluders(depsgraph, camera, window, farthest)
        lighting = self._lights.read(depsgraph) if stride > 1 else None
        return Look(camera, (height, width), stride, subjects, occluders, window, lighting)

    def _coarse(self, skinning: Skinning, shape: Shape, camera: Camera) -> Chosen:
        """As much of a surface as the camera's grid can show."""
        surface = skinning.surface
        some = _placed(shape.points[:: max(1, len(shape.points) // 64)], shape.world)
        scale = camera.scale_at(some.mean(axis=0)) if len(some) else 1.0
        make, detail = self._details.get(surface, (None, None))
        if make != skinning.make or scale > CLOSER * detail.scale:
            detail = Detail.of(_placed(shape.points, shape.world), surface.triangles, scale)
            self._details[surface] = skinning.make, detail
        points = _placed(shape.points[detail.vertices], shape.world)
        return Chosen(skinning, points, detail.triangles, detail.vertices, detail.outward)

    def draw(self, looks: Sequence[Look]) -> Iterator[None]:
        """Draw frames of one make, pausing on the way; the generator's return value is a `Drawn` for each.
        The first frame is drawn first, by itself and at its full size: flow leads there."""
        yield
        (height, width), count, stride = looks[0].shape, len(looks), looks[0].stride
        cameras, size = [look.camera for look in looks], height * width
        windows = np.array([look.window for look in looks])
        buffer = ZBuffer(width, height, count)
        drawn, number = [], 0
        for chosen in zip(*(look.subjects for look in looks)):
            first, points = chosen[0], [one.points for one in chosen]
            seen = see(cameras, points)
            triangles, layers = stack_triangles([first.triangles] * count, [len(first.points)] * count)
            numbers = np.tile(np.arange(number, number + len(first.triangles), dtype=np.int32), count)
            yield from draw_triangles(buffer, seen, triangles, numbers, layers, windows, first.outward)
            drawn.append((chosen, np.concatenate(points), seen, number))
            number += len(first.triangles)
        yield from _draw_occluders(buffer, looks, windows, number)

        found = [Drawn(Sighting((height, width), [])) for _ in looks]
        lit = looks[0].lighting is not None
        if lit:
            meter = LightMeter(
                [look.lighting for look in looks],
                [chosen[0].triangles for chosen, _, _, _ in drawn],
                [points.reshape(count, -1, 3) for _, points, _, _ in drawn],
            )
            flow = np.full((2, count, height, width), NO_FLOW, np.int16)
            light = np.zeros(count * size, np.uint8)
            found = [
                Drawn(one.sighting, flow[:, k], light[k * size :][:size].reshape(height, width))
                for k, one in enumerate(found)
            ]
            places = np.stack([camera.place for camera in cameras])
            yield
        for chosen, points, seen, first in drawn:
            surface = chosen[0]
            inside = np.flatnonzero(
                (buffer.triangle >= first) & (buffer.triangle < first + len(surface.triangles))
            )
            for cells in _batches(inside, size):
                layers, pixels = np.divmod(cells, size)
                local = surface.triangles[buffer.triangle[cells] - first]
                vertices = local + (layers * len(surface.points))[:, None]
                mixed = mixtures(seen.homogeneous, vertices, pixels, width)
                kept = local if surface.vertices is None else surface.vertices[local]
                begins = np.searchsorted(layers, np.arange(count + 1))
                for layer in np.flatnonzero(np.diff(begins)).tolist():
                    part = slice(begins[layer], begins[layer + 1])
                    one = (
                        chosen[layer].skinning,
                        pixels[part].astype(np.int32),
                        kept[part].astype(np.int32),
                        mixed[part].astype(np.float32),
                    )
                    found[layer].sighting.surfaces.append(one)
                if lit:
                    corners = seen.corners[:, :2][vertices]
                    traced = self._trace(surface, corners, local, mixed, pixels, width, stride)
                    flow.reshape(2, -1)[:, cells] = traced
                    facing = _facing(points[vertices], mixed, places[layers])
                    light[cells] = meter.measure(*facing, layers)
                yield
        if stride == 1 and not self._traced:
            nearness = buffer.nearness.reshape(height, width)
            for chosen in looks[0].subjects:
                skinning = chosen.skinning
                self._first[skinning.surface] = FirstView(cameras[0], nearness, chosen.points, skinning)
            self._traced = True
        return found

    def _trace(self, chosen: Chosen, corners, vertices, mixed, pixels, width: int, stride: int) -> np.ndarray:
        """[2, P] the flow of samples."""
        first = self._first.get(chosen.surface)
        if first is None or first.make != chosen.skinning.make:
            return np.full((2, len(pixels)), NO_FLOW, np.int16)
        turned = np.sign(area(corners))
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
        moving = [obj for obj in self._moving if is_shown(obj, depsgraph)]
        shown = self._still + moving
        corners = np.array([_corners_of(obj, depsgraph) for obj in moving]).reshape(-1, 8, 3)
        corners = np.concatenate([self._still_boxes, corners])
        nearest = camera.nearest_over(corners, window)
        nearest[nearest > farthest] = np.inf
        found, room = [], MAX_OCCLUDING
        for index in np.argsort(nearest)[: np.isfinite(nearest).sum()].tolist():
            shape = self._occluder(shown[index], depsgraph, room)
            if shape is not None:
                room -= len(shape[0])
                found.append(shape)
        if self._instancers:
            for points, triangles in instanced(depsgraph, self._instancers).values():
                if 0 < len(triangles) <= room and np.isfinite(
                    camera.nearest_over(_box(points)[None], window)
                ):
                    room -= len(triangles)
                    found.append((triangles, points, np.eye(4)))
        return found

    def _occluder(
        self, obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph, room: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Triangles, points and world matrix of an object, None where it has more triangles than there is
        room for. What nothing moves or bends is read once."""
        if obj in self._still_shapes:
            shape = self._still_shapes[obj]
            return shape if len(shape[0]) <= room else None
        with evaluated_mesh(obj, depsgraph) as mesh:
            if len(mesh.polygons) > room:
                return None
            make = (len(mesh.vertices), len(mesh.polygons))
            before, triangles = self._triangles.get(obj, (None, None))
            if make != before:
                triangles = read_triangles(mesh)
                self._triangles[obj] = make, triangles
            world = np.array(obj.evaluated_get(depsgraph).matrix_world, np.float64)
            shape = triangles, read_points(mesh), world
        if obj in self._still:
            self._still_shapes[obj] = shape
        return shape


def _corners_of(obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> np.ndarray:
    """[8, 3] the box around an object in world space."""
    evaluated = obj.evaluated_get(depsgraph)
    world = np.array(evaluated.matrix_world, np.float64)
    return np.array(evaluated.bound_box, np.float64) @ world[:3, :3].T + world[:3, 3]


@dataclass(frozen=True, eq=False)
class Chosen:
    """What is drawn of a surface, whose `skinning` it is: `points` [n, 3] in world space and `triangles`
    [T, 3] of them; `vertices` [n] are these points' numbers among all of the surface's, None when they are
    all."""

    skinning: Skinning
    points: np.ndarray
    triangles: np.ndarray
    vertices: np.ndarray | None = None
    outward: bool = False

    @property
    def surface(self) -> Surface:
        return self.skinning.surface


class Batch:
    """Collects looks at frames that can be drawn together."""

    def __init__(self):
        self.looks: list[Look] = []
        self._cost = 0

    def takes(self, look: Look) -> bool:
        """Whether another one still fits."""
        if not self.looks:
            return True
        return look.make == self.looks[0].make and self._cost + look.cost <= TOGETHER

    def add(self, look: Look) -> None:
        self.looks.append(look)
        self._cost += look.cost


class Resolver:
    """Tells the labels of what was sighted, once the limbs are chosen: limb index + 1 for each pixel, 0 for
    what belongs to no limb.

    `first_limb` has for each subject the index of its first limb; `joints` [F, K, 3] and `counts` [L] are
    the strokes of all limbs in world space over the clip. Vertices that no bone has a weight for go to the
    nearest limb of the frame in which they were read.
    """

    def __init__(self, first_limb: dict[Subject, int], joints: np.ndarray, counts: np.ndarray):
        self._subjects = {(s.armature, s.instancers): (s, first) for s, first in first_limb.items()}
        self._joints, self._ends = joints, np.cumsum(counts)[:-1]
        self._known: dict[Skinning, tuple[np.ndarray, np.ndarray]] = {}

    def label(self, sightings: Sequence[Sighting]) -> Iterator[None]:
        """[F, rows, columns] uint8 of sightings on one grid, pausing on the way, as the generator's return
        value."""
        shape = sightings[0].shape
        size = shape[0] * shape[1]
        labels = np.zeros(len(sightings) * size, np.uint8)
        waiting: dict[Skinning, list] = {}
        for frame, sighting in enumerate(sightings):
            for skinning, pixels, vertices, shares in sighting.surfaces:
                pieces = waiting.setdefault(skinning, [])
                pieces.append((pixels.astype(np.int64) + frame * size, vertices, shares))
                if sum(len(piece[0]) for piece in pieces) >= LOOKED_UP:
                    yield from self._look_up(labels, skinning, waiting.pop(skinning))
        for skinning, pieces in waiting.items():
            yield from self._look_up(labels, skinning, pieces)
        return labels.reshape(len(sightings), *shape)

    def _look_up(self, labels: np.ndarray, skinning: Skinning, pieces) -> Iterator[None]:
        if skinning not in self._known:
            subject, first = self._subjects[skinning.surface.rig.armature, skinning.surface.rig.instancers]
            strokes = np.split(self._joints[skinning.frame], self._ends)
            self._known[skinning] = yield from skinning.label(subject.choice, first, strokes)
        pixels, vertices, shares = (np.concatenate(arrays) for arrays in zip(*pieces))
        labels[pixels] = _label(*self._known[skinning], vertices, shares)
        yield


def _draw_occluders(buffer: ZBuffer, looks: Sequence[Look], windows: np.ndarray, number: int):
    """Draw what may stand in front, under one number."""
    pieces = [(layer, *one) for layer, look in enumerate(looks) for one in look.occluders]
    if not pieces:
        return
    layers, triangles, points, worlds = zip(*pieces)
    seen = see([looks[layer].camera for layer in layers], points, worlds)
    stacked, piece = stack_triangles(triangles, [len(some) for some in points])
    numbers = np.full(len(stacked), number, np.int32)
    yield from draw_triangles(buffer, seen, stacked, numbers, np.array(layers)[piece], windows)


def _placed(points: np.ndarray, world: np.ndarray) -> np.ndarray:
    """[V, 3] float32 where a matrix takes points [V, 3]."""
    world = world.astype(np.float32)
    return points @ world[:3, :3].T + world[:3, 3]


_CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])


def _box(points: np.ndarray) -> np.ndarray:
    """[8, 3] corners of the box around points [V, 3]."""
    return np.stack([points.min(axis=0), points.max(axis=0)])[_CORNERS, (0, 1, 2)]


def _facing(corners: np.ndarray, shares: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[P, 3] points that are mixtures of three corners [P, 3, 3] by shares [P, 3], and the unit normals
    [P, 3] there, to the side of the cameras at homogeneous `places` [P, 4]."""
    points = np.einsum("pk,pkc->pc", shares, corners)
    a, b, c = np.moveaxis(corners.astype(np.float64), 1, 0)
    normals = np.cross(b - a, c - a)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-18)
    away = (normals * towards(places, points)).sum(axis=1) < 0
    normals[away] *= -1
    return points, normals


def _label(labels: np.ndarray, weights: np.ndarray, vertices: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """[P] labels of points that are mixtures of three vertices [P, 3] by shares [P, 3]: the limb with the
    largest weight there. `labels` and `weights` [V, n] are those of all vertices."""
    nearest = labels[vertices, 0]
    found = nearest[:, 0].copy()
    mixed = np.flatnonzero((nearest != nearest[:, :1]).any(axis=1))
    if not len(mixed):
        return found
    vertices = vertices[mixed]
    label = labels[vertices].reshape(len(mixed), -1)
    weight = (weights[vertices] * np.clip(shares[mixed], 0, 1)[:, :, None]).reshape(len(mixed), -1)
    together = ((label[:, :, None] == label[:, None, :]) * weight[:, None, :]).sum(axis=2)
    together[label == 0] = 0
    found[mixed] = label[np.arange(len(mixed)), together.argmax(axis=1)]
    return found


def _batches(cells: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cells in order, of layers of `size` each, in pieces of whole layers."""
    layers = np.searchsorted(cells, np.arange(0, int(cells[-1]) + size + 1, size)) if len(cells) else []
    begin = 0
    for end in layers:
        if end - begin >= LOOKED_UP or (end == len(cells) and end > begin):
            yield cells[begin:end]
            begin = end


def most_frequent(labels: np.ndarray) -> np.ndarray:
    """[F, rows / SAMPLES, columns / SAMPLES]: the label that most samples of each cell have in labels
    [F, rows, columns]; none where less than half of them have any."""
    cells = [labels[:, row::SAMPLES, column::SAMPLES] for row in range(SAMPLES) for column in range(SAMPLES)]
    cells = [np.ascontiguousarray(cell) for cell in cells]
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
