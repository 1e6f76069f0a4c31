"""Which limb owns each pixel, from the skinned meshes: the nearest surface wins, and there the limb with
the most weight.

Fast because nothing is rendered. What `looks` has copied of the scene is projected by one matrix product,
drawn by `zbuffer.ZBuffer` with nothing but the triangle's number, and only the pixels that are left look up
vertices and weights. Frames that show the same surfaces are drawn together, and which limbs there are may be
decided after that. Nothing here touches Blender's data, so that a thread may do it while Blender evaluates
the next frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..rig.limbs import LimbChoice
from ..shared.messages import NO_FLOW
from .flow import FirstView, quantise
from .light import LightMeter
from .looks import SAMPLES, Chosen, Look
from .skinning import Skinning
from .triangles import Seen, area, draw_triangles, mixtures, see, stack_triangles, towards
from .zbuffer import ZBuffer

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
class Raster:
    """One surface as it is drawn in F frames together: `chosen` [F] of them, their `points` [F * n, 3] one
    frame after the other, how they are `seen`, and the number of its first triangle in the buffer."""

    chosen: tuple[Chosen, ...]
    points: np.ndarray
    seen: Seen
    number: int


class Labeller:
    """Draws frames that were looked at. When it was shown the first one, it traces the others there."""

    def __init__(self) -> None:
        self._first: dict[int, FirstView] = {}

    def draw_first(self, look: Look) -> Iterator[None]:
        """Draw the clip's first frame at its full size, pausing on the way; the generator's return value is
        its `Sighting`."""
        buffer, rasters = yield from _rasterise([look])
        nearness = buffer.nearness.reshape(look.shape)
        for chosen in look.subjects:
            self._first[chosen.surface] = FirstView(look.camera, nearness, chosen.points, chosen.skinning)
        [drawn] = yield from self._draw([look], buffer, rasters)
        return drawn.sighting

    def draw(self, looks: Sequence[Look]) -> Iterator[None]:
        """Draw frames of one make, pausing on the way; the generator's return value is a `Drawn` for
        each."""
        return (yield from self._draw(looks, *(yield from _rasterise(looks))))

    def _draw(self, looks: Sequence[Look], buffer: ZBuffer, rasters: list[Raster]) -> Iterator[None]:
        (height, width), count = looks[0].shape, len(looks)
        size = height * width
        found = [Drawn(Sighting((height, width), [])) for _ in looks]
        lit = looks[0].lighting is not None
        if lit:
            meter = LightMeter(
                [look.lighting for look in looks],
                [raster.chosen[0].triangles for raster in rasters],
                [raster.points.reshape(count, -1, 3) for raster in rasters],
            )
            flow = np.full((2, count, height, width), NO_FLOW, np.int16)
            light = np.zeros(count * size, np.uint8)
            found = [
                Drawn(one.sighting, flow[:, k], light[k * size :][:size].reshape(height, width))
                for k, one in enumerate(found)
            ]
            places = np.stack([look.camera.place for look in looks])
            yield
        for raster in rasters:
            surface, first = raster.chosen[0], raster.number
            inside = np.flatnonzero(
                (buffer.triangle >= first) & (buffer.triangle < first + len(surface.triangles))
            )
            for cells in _batches(inside, size):
                layers, pixels = np.divmod(cells, size)
                local = surface.triangles[buffer.triangle[cells] - first]
                vertices = local + (layers * len(surface.points))[:, None]
                mixed = mixtures(raster.seen.homogeneous, vertices, pixels, width)
                kept = local if surface.vertices is None else surface.vertices[local]
                begins = np.searchsorted(layers, np.arange(count + 1))
                for layer in np.flatnonzero(np.diff(begins)).tolist():
                    part = slice(begins[layer], begins[layer + 1])
                    one = (
                        raster.chosen[layer].skinning,
                        pixels[part].astype(np.int32),
                        kept[part].astype(np.int32),
                        mixed[part].astype(np.float32),
                    )
                    found[layer].sighting.surfaces.append(one)
                if lit:
                    corners = raster.seen.corners[:, :2][vertices]
                    traced = self._trace(surface, corners, local, mixed, pixels, width, looks[0].stride)
                    flow.reshape(2, -1)[:, cells] = traced
                    facing = _facing(raster.points[vertices], mixed, places[layers])
                    light[cells] = meter.measure(*facing, layers)
                yield
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

    `choices` has the limbs of each subject; `joints` [F, K, 3] and `counts` [L] are the strokes of all of
    them, one subject after the other, in world space over the clip. Vertices that no bone has a weight
    for go to the nearest limb of the frame in which they were read.
    """

    def __init__(self, choices: Sequence[LimbChoice], joints: np.ndarray, counts: np.ndarray):
        firsts = np.cumsum([0, *(len(choice.limbs) for choice in choices)]).tolist()
        self._choices = list(zip(choices, firsts))
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
            strokes = np.split(self._joints[skinning.frame], self._ends)
            self._known[skinning] = yield from skinning.label(*self._choices[skinning.subject], strokes)
        pixels, vertices, shares = (np.concatenate(arrays) for arrays in zip(*pieces))
        labels[pixels] = _label(*self._known[skinning], vertices, shares)
        yield


def _rasterise(looks: Sequence[Look]) -> Iterator[None]:
    """Draw the triangles of frames of one make, pausing on the way; the generator's return value is the
    buffer, and a `Raster` for each of the subjects' surfaces."""
    yield
    (height, width), count = looks[0].shape, len(looks)
    cameras, windows = [look.camera for look in looks], np.array([look.window for look in looks])
    buffer = ZBuffer(width, height, count)
    rasters, number = [], 0
    for chosen in zip(*(look.subjects for look in looks)):
        first, points = chosen[0], [one.points for one in chosen]
        seen = see(cameras, points)
        triangles, layers = stack_triangles([first.triangles] * count, [len(first.points)] * count)
        numbers = np.tile(np.arange(number, number + len(first.triangles), dtype=np.int32), count)
        yield from draw_triangles(buffer, seen, triangles, numbers, layers, windows, first.outward)
        rasters.append(Raster(chosen, np.concatenate(points), seen, number))
        number += len(first.triangles)
    occluders = [(layer, one) for layer, look in enumerate(looks) for one in look.occluders]
    if occluders:  # all under one number
        layers, shapes = zip(*occluders)
        points, worlds = [shape.points for shape in shapes], [shape.world for shape in shapes]
        seen = see([cameras[layer] for layer in layers], points, worlds)
        triangles, piece = stack_triangles([shape.triangles for shape in shapes], list(map(len, points)))
        numbers = np.full(len(triangles), number, np.int32)
        yield from draw_triangles(buffer, seen, triangles, numbers, np.array(layers)[piece], windows)
    return buffer, rasters


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
    candidates, weight = np.ascontiguousarray(label.T), np.ascontiguousarray(weight.T)
    together = np.zeros_like(weight)
    for one, much in zip(candidates, weight):
        together += np.where(candidates == one, much, 0)
    together[candidates == 0] = 0
    found[mixed] = label[np.arange(len(mixed)), together.argmax(axis=0)]
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
