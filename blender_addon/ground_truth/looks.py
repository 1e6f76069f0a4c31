"""What is copied of the scene, frame by frame, to be drawn while Blender goes on: a look holds nothing of
Blender's.

Vertices are copied from the evaluated mesh as one block; weights, the one thing that Blender hands out vertex
by vertex, are read once a clip. Where a grid is coarser than a mesh, only as much as the grid can show is
placed in the world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import bpy
import numpy as np

from ..rig.skin import FLESH_TYPES
from ..steps import at_once
from ..view.projection import Projector
from .light import Lighting, LightReader
from .shapes import Shape, ShapeReader
from .skinning import Skinning
from .surfaces import Surface, is_instancer, is_still, rendered_objects
from .triangles import Camera, bounds
from .visibility import is_shown

SAMPLES = 2
"""Samples along each side of a part map's cell; the cell has the label that most of them have."""
CLOSER = 1.5
"""A subject that is seen so many times as large as before is looked at in more detail."""
WIDER = 3.0
"""A gap between vertices that is so many times as wide as before has opened: they were in one place while
their bone was scaled to nothing."""
OPENED = 0.03
"""A subject of which this fraction of the gaps have opened is looked at anew."""
CLUSTER = 1.0
"""Samples within which vertices are taken for one, where a grid is coarser than a mesh."""
MAX_OCCLUDING = 200_000
"""Triangles in front of the subjects that are looked at in a frame, the nearest objects' first."""


@dataclass(frozen=True, eq=False)
class Detail:
    """As much of a surface as a grid can show: the `vertices` [n] that are kept, and `triangles` [t, 3] of
    them, counted within these. It is `outward` when it is closed and its triangles run counterclockwise as
    seen from without. It was chosen for the given `scale` of samples to a scene unit."""

    vertices: np.ndarray
    triangles: np.ndarray
    outward: bool
    scale: float

    @classmethod
    def whole(cls, shape: Shape) -> Detail:
        return cls(np.arange(len(shape.points)), shape.triangles, False, np.inf)

    @classmethod
    def of(cls, points: np.ndarray, triangles: np.ndarray, scale: float) -> Detail:
        """What matters of a surface with `points` [V, 3] in world space, when a sample is wider than
        1 / `scale`: vertices within about a sample become one of them (vertex clustering, after Rossignac and
        Borrel, 1993)."""
        used = np.unique(triangles)
        if not len(used):
            return cls(used, np.zeros((0, 3), np.int32), False, scale)
        cells = np.floor((points[used] - points[used].min(axis=0)) * (scale / CLUSTER)).astype(np.int64)
        wide = cells.max(axis=0) + 1
        _, cluster = np.unique(
            (cells[:, 0] * wide[1] + cells[:, 1]) * wide[2] + cells[:, 2], return_inverse=True
        )
        cluster = cluster.ravel()
        size = np.bincount(cluster)
        middle = np.stack([np.bincount(cluster, points[used, axis]) / size for axis in range(3)], axis=1)
        away = ((points[used] - middle[cluster]) ** 2).sum(axis=1)
        order = np.lexsort((away, cluster))
        chosen = used[order[np.concatenate([[0], np.cumsum(size)[:-1]])]]
        to_cluster = np.zeros(len(points), np.int64)
        to_cluster[used] = cluster
        kept = to_cluster[triangles]
        kept = kept[(kept[:, 0] != kept[:, 1]) & (kept[:, 1] != kept[:, 2]) & (kept[:, 2] != kept[:, 0])]
        return cls(chosen, kept.astype(np.int32), _is_outward(points, triangles), scale)


def _is_outward(points: np.ndarray, triangles: np.ndarray) -> bool:
    """Whether triangles enclose a volume, counterclockwise as seen from without: every edge is run along once
    in each direction."""
    begin, end = (np.concatenate([triangles[:, k] for k in order]) for order in ((0, 1, 2), (1, 2, 0)))
    count = len(points)
    there = np.sort(begin.astype(np.int64) * count + end)
    if (np.diff(there) == 0).any() or not np.array_equal(
        there, np.sort(end.astype(np.int64) * count + begin)
    ):
        return False
    a, b, c = (points[triangles[:, k]].astype(np.float64) - points[triangles[0, 0]] for k in range(3))
    return bool(np.einsum("tc,tc->", a, np.cross(b, c)) > 0)


@dataclass(frozen=True, eq=False)
class Chosen:
    """What is drawn of the surface with the number `surface`, whose `skinning` it is: `points` [n, 3] in
    world space and `triangles` [T, 3] of them; `vertices` [n] are these points' numbers among all of the
    surface's, None when they are all. It may throw no shadow."""

    surface: int
    skinning: Skinning
    points: np.ndarray
    triangles: np.ndarray
    vertices: np.ndarray | None = None
    outward: bool = False
    throws_shadow: bool = True

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest coordinates [3] of the points, of which there are some."""
        return bounds(self.points)


@dataclass(frozen=True, eq=False)
class Look:
    """What is needed of an evaluated frame to draw it on a grid of `shape` (rows, columns), `stride` pixels
    a cell: the `camera`, the subjects' surfaces, `occluders` that may stand in front of them, the `window` of
    the grid around the subjects, and the `lighting`."""

    camera: Camera
    shape: tuple[int, int]
    stride: int
    subjects: list[Chosen]
    occluders: list[Shape]
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
        return sum(len(one.triangles) for one in self.subjects) + sum(
            len(one.triangles) for one in self.occluders
        )


class FrameReader:
    """Copies what is drawn of a clip's frames: the subjects' `surfaces`, the other meshes of the scene that
    may be in front of them, and the lights."""

    def __init__(self, surfaces: Sequence[Surface], depsgraph: bpy.types.Depsgraph):
        self._surfaces = surfaces
        self._shapes = ShapeReader()
        self._skinnings: dict[Surface, Skinning] = {}
        self._own = {surface.obj for surface in surfaces}
        others = [obj for obj in rendered_objects(depsgraph) if obj.mode != "EDIT"]
        solid = [obj for obj in others if obj not in self._own and obj.type in FLESH_TYPES]
        self._moving = [obj for obj in solid if not is_still(obj)]
        self._still: dict[bpy.types.Object, Shape | None] = dict.fromkeys(
            obj for obj in solid if is_still(obj) and is_shown(obj, depsgraph)
        )
        self._still_boxes = np.array([_corners_of(obj, depsgraph) for obj in self._still]).reshape(-1, 8, 3)
        self._instancers = {obj for obj in others if is_instancer(obj)} - self._own
        self._instancers -= {surface.rig.instancers[0] for surface in surfaces if surface.rig.instancers}
        self._lights = LightReader(depsgraph, self._own)
        self._details: dict[int, tuple[tuple[int, int], Detail, np.ndarray]] = {}

    @property
    def too_many(self) -> bool:
        """Whether there were more instances in a frame than are looked at."""
        return self._shapes.too_many

    def read(self, frame: int, evaluated: Callable[[], bpy.types.Depsgraph]) -> Iterator[None]:
        """Read whose the vertices of the surfaces are, pausing often. `evaluated` gives the scene, at clip
        frame `frame`, anew after every pause, since others may have touched it. One that is not shown yet is
        read when it is. Raises `ExportError` when one was changed meanwhile."""
        for surface in self._surfaces:
            if surface.is_shown(evaluated()):
                surface.shape(self._shapes, evaluated())  # some modifiers only run when the mesh is asked for
                yield
                self._skinnings[surface] = yield from Skinning.read(surface, self._shapes, frame, evaluated)

    def look(self, frame: int, depsgraph: bpy.types.Depsgraph, projector: Projector, stride: int = 1) -> Look:
        """Copy what is needed of the scene, evaluated at clip frame `frame` and seen through a one-frame
        projector, to draw a grid of [height / stride, width / stride] cells (rounded up)."""
        samples = 1 if stride == 1 else SAMPLES
        fit = projector.fit
        height, width = -(-fit.height // stride) * samples, -(-fit.width // stride) * samples
        camera = Camera.of(projector, samples / stride)
        subjects = []
        for number, surface in enumerate(self._surfaces):
            if not surface.is_shown(depsgraph):
                continue
            shape = surface.shape(self._shapes, depsgraph)
            skinning = self._skinnings.get(surface)
            if skinning is None or (skinning.make, skinning.bone) != (shape.make, surface.carrier):
                work = Skinning.read(surface, self._shapes, frame, lambda: depsgraph)
                skinning = self._skinnings[surface] = at_once(work)
            if stride == 1:
                placed = _placed(shape.points, shape.world)
                subjects.append(Chosen(number, skinning, placed, shape.triangles))
            else:
                subjects.append(self._coarse(number, skinning, shape, camera))
        boxes = [_box(*chosen.bounds) for chosen in subjects if len(chosen.points)]
        window = camera.window(boxes, width, height) if boxes else (0, 0, 0, 0)
        farthest = camera.farthest(np.concatenate(boxes)) if boxes else 0.0
        occluders = self._occluders(depsgraph, camera, window, farthest)
        lighting = self._lights.read(depsgraph) if stride > 1 else None
        return Look(camera, (height, width), stride, subjects, occluders, window, lighting)

    def _coarse(self, number: int, skinning: Skinning, shape: Shape, camera: Camera) -> Chosen:
        """As much of a surface as the camera's grid can show."""
        step = max(1, len(shape.points) // 64)
        some, beside = (_placed(shape.points[first::step], shape.world) for first in (0, 1))
        gaps = np.linalg.norm(some[: len(beside)] - beside[: len(some)], axis=1)
        scale = camera.scale_at(some.mean(axis=0)) if len(some) else 1.0
        make, detail, before = self._details.get(number, (None, None, None))
        known = make == skinning.make and scale <= CLOSER * detail.scale
        if not known or (gaps > WIDER * before + 1e-3 / scale).sum() > OPENED * len(gaps):
            if shape.roots is None:
                detail = Detail.of(_placed(shape.points, shape.world), shape.triangles, scale)
            else:
                detail = Detail.whole(shape)  # strands are thin
            self._details[number] = skinning.make, detail, gaps
        points = _placed(shape.points[detail.vertices], shape.world)
        throws_shadow = self._surfaces[number].obj.visible_shadow
        return Chosen(
            number, skinning, points, detail.triangles, detail.vertices, detail.outward, throws_shadow
        )

    def _occluders(self, depsgraph, camera: Camera, window, farthest: float) -> list[Shape]:
        """What may stand in front of the subjects, whose depth is `farthest` at most."""
        if window[2] <= window[0] or window[3] <= window[1]:
            return []
        moving = [obj for obj in self._moving if is_shown(obj, depsgraph)]
        shown = [*self._still, *moving]
        corners = np.array([_corners_of(obj, depsgraph) for obj in moving]).reshape(-1, 8, 3)
        corners = np.concatenate([self._still_boxes, corners])
        nearest = camera.nearest_over(corners, window)
        nearest[nearest > farthest] = np.inf
        found, room = [], MAX_OCCLUDING
        for index in np.argsort(nearest)[: np.isfinite(nearest).sum()].tolist():
            shape = self._occluder(shown[index], depsgraph, room)
            if shape is not None:
                room -= len(shape.triangles)
                found.append(shape)
        if self._instancers:
            for shape in self._shapes.read_instances(depsgraph, self._instancers).values():
                if 0 < len(shape.triangles) <= room and np.isfinite(
                    camera.nearest_over(_box(*bounds(shape.points))[None], window)
                ):
                    room -= len(shape.triangles)
                    found.append(shape)
        return found

    def _occluder(self, obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph, room: int) -> Shape | None:
        """An object's shape, None where it has more triangles than there is room for. What nothing moves or
        bends is read once."""
        shape = self._still.get(obj) or self._shapes.read(obj, depsgraph, most=room)
        if shape is None or len(shape.triangles) > room:
            return None
        if obj in self._still:
            self._still[obj] = shape
        return shape


def _corners_of(obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> np.ndarray:
    """[8, 3] the box around an object in world space."""
    evaluated = obj.evaluated_get(depsgraph)
    world = np.array(evaluated.matrix_world, np.float64)
    return np.array(evaluated.bound_box, np.float64) @ world[:3, :3].T + world[:3, 3]


def _placed(points: np.ndarray, world: np.ndarray) -> np.ndarray:
    """[V, 3] float32 where a matrix takes points [V, 3]."""
    world = world.astype(np.float32)
    return points @ world[:3, :3].T + world[:3, 3]


_CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])


def _box(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """[8, 3] corners of a box with these extremes [3]."""
    return np.stack([low, high])[_CORNERS, (0, 1, 2)]
