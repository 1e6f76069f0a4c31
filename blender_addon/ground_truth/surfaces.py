"""The meshes of the subjects, with the limbs that own their vertices, and the meshes that may hide them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import bpy
import numpy as np

from ..errors import ExportError
from ..rig.animation import followed, followers
from ..rig.limbs import LimbChoice
from ..rig.skin import (
    FLESH_TYPES,
    carrying_bone,
    is_bound,
    is_rendered,
    metaball_family,
    read_points,
    read_triangles,
)
from ..rig.subjects import Rig
from ..texts import say
from .visibility import meets_camera

STRONGEST = 4
"""Limbs kept for each vertex, as many as real-time rigs know."""
BATCH = 4000
"""Vertices whose weights are read before somebody else may go on."""
CLUSTER = 1.0
"""Samples within which vertices are taken for one, where a grid is coarser than a mesh."""
MAX_INSTANCES = 2000
"""Instances looked at in a frame."""


@dataclass(frozen=True, eq=False)
class Shape:
    """What an object, or all that it instances, is in one frame: `points` [V, 3], which the matrix `world`
    [4, 4] takes to world space, and how many vertices and faces it is made of (`make`)."""

    points: np.ndarray
    world: np.ndarray
    make: tuple[int, int]


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


@dataclass(eq=False)
class Surface:
    """One object of a rig, or, where `instances` is true, what it instances. `triangles` [T, 3] are those of
    the shape that was asked for last, which had so many vertices and faces (`make`). All of it belongs to
    `bone` where that is set."""

    obj: bpy.types.Object
    rig: Rig
    bone: str = ""
    instances: bool = False
    make: tuple[int, int] = (-1, -1)
    triangles: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int32))

    @property
    def is_weighted(self) -> bool:
        """Whether vertex groups tell whose its vertices are."""
        return self.obj.type == "MESH" and not self.instances and not self.bone

    def shape(self, depsgraph: bpy.types.Depsgraph) -> Shape:
        """The shape in the frame that is evaluated; `triangles` are read anew where its make has changed."""
        if self.instances:
            points, triangles = instanced(depsgraph, {self.obj}).get(self.obj, (None, None))
            if points is None:
                points, triangles = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
            make = len(points), len(triangles)
            if make != self.make:
                self.make, self.triangles = make, triangles
            return Shape(points, np.eye(4), make)
        evaluated = self.obj.evaluated_get(depsgraph)
        world = self.rig.placement(depsgraph) @ np.array(evaluated.matrix_world, np.float64)
        with evaluated_mesh(self.obj, depsgraph) as mesh:
            make = len(mesh.vertices), len(mesh.polygons)
            if make != self.make:
                self.make, self.triangles = make, read_triangles(mesh)
            return Shape(read_points(mesh), world, make)


@contextmanager
def evaluated_mesh(obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> Iterator[bpy.types.Mesh]:
    """The surface of an object in the frame that is evaluated, as a mesh, also of curves, texts and
    metaballs."""
    evaluated = obj.evaluated_get(depsgraph)
    if evaluated.type == "MESH":
        yield evaluated.data
        return
    mesh = evaluated.to_mesh()
    try:
        yield mesh
    finally:
        evaluated.to_mesh_clear()


def find_surfaces(rigs: Sequence[Rig], depsgraph: bpy.types.Depsgraph) -> list[Surface]:
    """What renders and moves with a rig: skinned, carried by a bone, or following one of those. What is
    bound to one of the rigs is its alone.

    Raises `ExportError` when one is being edited."""
    surfaces, taken = [], set()
    armatures = {rig.armature for rig in rigs}
    for rig in rigs:
        objects = rendered_objects(depsgraph, rig.instancer)
        along = followers(rig.armature, [*objects, *_invisible(objects, rig)])
        for obj in objects:
            key = (obj, rig.instancers)
            bound = is_bound(obj, rig.armature)
            bone = "" if bound else _carrier(obj, rig.armature, along)
            if obj.type == "META":
                family = metaball_family(obj)
                bones = {_carrier(member, rig.armature, along) for member in family} - {""}
                bone = bones.pop() if len(bones) == 1 else ""
                bound = bool(bones)  # the nearest limbs own what melts together of several bones
            others = any(is_bound(obj, other) for other in armatures - {rig.armature})
            if key in taken or not (bound or bone or (obj in along and not others)):
                continue
            if obj.mode == "EDIT":
                raise ExportError(say("The mesh {mesh} is in Edit Mode; leave it first.", mesh=obj.name))
            taken.add(key)
            if obj.type in FLESH_TYPES:
                surfaces.append(Surface(obj, rig, bone))
            if is_instancer(obj) and rig.instancer is None:
                surfaces.append(Surface(obj, rig, bone, instances=True))
    return surfaces


def _invisible(objects: list[bpy.types.Object], rig: Rig) -> list[bpy.types.Object]:
    """Objects that may pass motion on without being rendered themselves: lattices, empties, other
    armatures."""
    known = set(objects)
    return [obj for obj in rig.objects if obj not in known and obj != rig.armature]


def _carrier(obj: bpy.types.Object, armature: bpy.types.Object, along) -> str:
    """The bone that carries an object rigidly, also through lattices, curves and other objects it follows."""
    seen, waiting = set(), [obj]
    while waiting:
        one = waiting.pop()
        if one in seen or is_bound(one, armature):
            continue
        seen.add(one)
        if bone := carrying_bone(one, armature):
            return bone
        waiting.extend(link for link in followed(one) if link in along)
    return ""


def is_instancer(obj: bpy.types.Object) -> bool:
    """Whether an object may make instances of others."""
    return (
        obj.instance_type != "NONE"
        or any(modifier.type == "NODES" for modifier in obj.modifiers)
        or len(obj.particle_systems) > 0
    )


def instanced(
    depsgraph: bpy.types.Depsgraph, instancers: set[bpy.types.Object] | None = None
) -> dict[bpy.types.Object, tuple[np.ndarray, np.ndarray]]:
    """What objects instance in the frame that is evaluated, however deep: for each the points [V, 3] in
    world space and triangles [T, 3] of all its instances together."""
    pieces: dict[bpy.types.Object, list] = {}
    meshes: dict[bpy.types.ID, tuple[np.ndarray, np.ndarray]] = {}
    seen = 0
    for instance in depsgraph.object_instances:
        if not instance.is_instance or instance.parent is None:
            continue
        owner = instance.parent.original
        obj = instance.object
        if (instancers is not None and owner not in instancers) or obj.type not in FLESH_TYPES:
            continue
        seen += 1
        if seen > MAX_INSTANCES:
            break
        if obj.original.hide_render or owner.hide_render or not meets_camera(obj, depsgraph):
            continue
        if obj.type == "MESH":
            data = obj.data
            if data not in meshes:
                meshes[data] = read_points(data), read_triangles(data)
            points, triangles = meshes[data]
        else:
            mesh = obj.to_mesh()
            points, triangles = read_points(mesh), read_triangles(mesh)
            obj.to_mesh_clear()
        matrix = np.array(instance.matrix_world, np.float64)
        pieces.setdefault(owner, []).append((points @ matrix[:3, :3].T + matrix[:3, 3], triangles))
    found = {}
    for owner, parts in pieces.items():
        begins = np.cumsum([0] + [len(points) for points, _ in parts])
        triangles = np.concatenate([part[1] + begin for part, begin in zip(parts, begins)])
        found[owner] = np.concatenate([points for points, _ in parts]).astype(np.float32), triangles
    return found


def rendered_objects(
    depsgraph: bpy.types.Depsgraph, instancer: bpy.types.Object | None = None
) -> list[bpy.types.Object]:
    """The objects with a surface, and those that instance some, of the scene, or of what an object
    instances, that render in some frame and are in the view layer that is evaluated."""
    rendered = _rendered(depsgraph.scene.collection if instancer is None else instancer.instance_collection)
    return [
        obj
        for obj in rendered
        if (obj.type in FLESH_TYPES or is_instancer(obj))
        and is_rendered(obj)
        and not (obj.parent is not None and obj.parent.instance_type in {"VERTS", "FACES"})
        and obj.evaluated_get(depsgraph).is_evaluated
        and (obj.type != "META" or metaball_family(obj)[0] == obj)
    ]


def rendered_lights(depsgraph: bpy.types.Depsgraph) -> list[bpy.types.Object]:
    """The lights of the scene that render in some frame."""
    return [obj for obj in _rendered(depsgraph.scene.collection) if obj.type == "LIGHT" and is_rendered(obj)]


def is_still(obj: bpy.types.Object) -> bool:
    """Whether nothing moves, bends, changes or hides an object."""
    moved = obj.parent or obj.animation_data or len(obj.constraints) or obj.rigid_body
    bent = len(obj.modifiers) or getattr(obj.data, "shape_keys", None)
    return not moved and not bent and getattr(obj.data, "animation_data", None) is None


def _rendered(collection: bpy.types.Collection) -> dict[bpy.types.Object, None]:
    """The objects of a collection and those in it, each once and in order, without collections that do not
    render."""
    if collection.hide_render:
        return {}
    objects = dict.fromkeys(collection.objects)
    for child in collection.children:
        objects |= _rendered(child)
    return objects


@dataclass(frozen=True, eq=False)
class Skinning:
    """Whose the vertices of a surface are while it has one `make`, as its bones tell: `weight` [n] above 0 of
    the `group` [n], whose names are `groups`, for `vertex` [n]. It was read at clip frame `frame`, when the
    vertices were at `points` [V, 3], which `world` takes to world space."""

    surface: Surface
    frame: int
    make: tuple[int, int]
    points: np.ndarray
    world: np.ndarray
    groups: tuple[str, ...]
    vertex: np.ndarray
    group: np.ndarray
    weight: np.ndarray

    @classmethod
    def read(
        cls, surface: Surface, frame: int, evaluated: Callable[[], bpy.types.Depsgraph]
    ) -> Iterator[None]:
        """Read it, pausing often, as the generator's return value: weights come vertex by vertex, about a
        microsecond each. `evaluated` gives the evaluated scene, anew after every pause. Raises
        `ExportError` when the surface was changed meanwhile."""
        shape = surface.shape(evaluated())
        count, found = len(shape.points), []
        groups = tuple(group.name for group in surface.obj.vertex_groups) if surface.is_weighted else ()
        for begin in range(0, count if groups else 0, BATCH):
            vertices = surface.obj.evaluated_get(evaluated()).data.vertices
            if len(vertices) != count:
                raise ExportError(
                    say(
                        "The mesh of {mesh} was changed while it was exported; export again.",
                        mesh=surface.obj.name,
                    )
                )
            batch = range(begin, min(begin + BATCH, count))
            found += [(i, group.group, group.weight) for i in batch for group in vertices[i].groups]
            yield
        vertex, group, weight = np.array(found).reshape(-1, 3).T
        vertex, group = vertex.astype(np.int64), group.astype(np.int64)
        known = (weight > 0) & (group < len(groups))
        arrays = vertex[known], group[known], weight[known]
        return cls(surface, frame, shape.make, shape.points, shape.world, groups, *arrays)

    def label(self, choice: LimbChoice, first: int, strokes: Sequence[np.ndarray]) -> Iterator[None]:
        """[V, n] uint8 labels, limb index + 1 (0 for none), with their weights [V, n] float32, the strongest
        first, n being 4 or as few as are used, pausing on the way, as the generator's return value. `first`
        is the index of the choice's first limb among all; what no bone has a weight for goes to the nearest
        of the limbs' `strokes` in world space."""
        count = len(self.points)
        labels, weights = np.zeros((count, STRONGEST), np.uint8), np.zeros((count, STRONGEST), np.float32)
        if self.surface.bone in choice.owners:
            labels[:, 0], weights[:, 0] = first + 1 + choice.owners[self.surface.bone], 1
            return labels[:, :1], weights[:, :1]
        of_group = [first + 1 + choice.owners[g] if g in choice.owners else 0 for g in self.groups]
        if len(self.vertex):
            _strongest(labels, weights, self.vertex, np.array(of_group)[self.group], self.weight)
        yield
        used = max(1, int((weights > 0).sum(axis=1).max(initial=0)))
        labels, weights = labels[:, :used].copy(), weights[:, :used].copy()
        bare = np.flatnonzero(weights[:, 0] == 0)
        limbs = range(first, first + len(choice.limbs))
        for begin in range(0, len(bare), BATCH):
            batch = bare[begin : begin + BATCH]
            placed = self.points[batch] @ self.world[:3, :3].T + self.world[:3, 3]
            labels[batch, 0], weights[batch, 0] = _nearest(placed, strokes, limbs) + 1, 1
            yield
        return labels, weights


def _nearest(points: np.ndarray, strokes: Sequence[np.ndarray], limbs: range) -> np.ndarray:
    away = np.full(len(points), np.inf)
    nearest = np.zeros(len(points), np.uint8)
    for limb in limbs:
        stroke = strokes[limb]
        for start, step in zip(stroke[:-1], np.diff(stroke, axis=0)):
            out = points - start
            along = np.clip(out @ step / max(float(step @ step), 1e-18), 0, 1)
            distance = ((out - along[:, None] * step) ** 2).sum(axis=1)
            nearer = distance < away
            away[nearer], nearest[nearer] = distance[nearer], limb
    return nearest


def _strongest(
    labels: np.ndarray, weights: np.ndarray, vertex: np.ndarray, label: np.ndarray, weight: np.ndarray
) -> None:
    """Add the weights of bones of the same limb and keep each vertex's strongest limbs, the strongest
    first."""
    known = (label > 0) & (weight > 0)
    key, where = np.unique(vertex[known] * 256 + label[known], return_inverse=True)
    total = np.bincount(where, weight[known], len(key))
    order = np.lexsort((-total, key // 256))
    vertex, label, total = key[order] // 256, key[order] % 256, total[order]
    begins = np.concatenate([[0], np.flatnonzero(np.diff(vertex)) + 1])
    rank = np.arange(len(vertex)) - np.repeat(begins, np.diff(np.append(begins, len(vertex))))
    kept = rank < STRONGEST
    labels[vertex[kept], rank[kept]] = label[kept]
    weights[vertex[kept], rank[kept]] = total[kept]
