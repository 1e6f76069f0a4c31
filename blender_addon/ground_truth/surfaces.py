"""The meshes of the subjects, with the limbs that own their vertices, and the meshes that may hide them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import bpy
import numpy as np

from ..errors import ExportError
from ..rig.skin import carrying_bone, is_bound, read_points, read_triangles
from ..rig.subjects import Subject

STRONGEST = 4
"""Limbs kept for each vertex, as many as real-time rigs know."""
BATCH = 4000
"""Vertices whose weights are read before somebody else may go on."""


@dataclass(eq=False)
class Surface:
    """One mesh object of a subject. `labels` [V, n] uint8 are limb indices + 1 (0 for none) with their
    `weights` [V, n] float32, the strongest first, n being 4 or as few as are used."""

    obj: bpy.types.Object
    subject: Subject
    bone: str = ""
    triangles: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    labels: np.ndarray = field(default_factory=lambda: np.zeros((0, STRONGEST), np.uint8))
    weights: np.ndarray = field(default_factory=lambda: np.zeros((0, STRONGEST), np.float32))

    def placed(self, depsgraph: bpy.types.Depsgraph) -> tuple[bpy.types.Mesh, np.ndarray]:
        """The evaluated mesh and the matrix [4, 4] that takes it to world space."""
        evaluated = self.obj.evaluated_get(depsgraph)
        return evaluated.data, self.subject.placement(depsgraph) @ np.array(
            evaluated.matrix_world, np.float64
        )


def find_surfaces(subjects: Sequence[Subject], depsgraph: bpy.types.Depsgraph) -> list[Surface]:
    """The meshes that can be seen and move with a subject: skinned, carried by a bone, or following one of
    those.

    Raises `ExportError` when one is being edited."""
    surfaces, taken = [], set()
    for subject in subjects:
        objects = seen_meshes(depsgraph, subject.instancer)
        bound = {obj for obj in objects if is_bound(obj, subject.armature)}
        for obj in objects:
            key = (obj, subject.instancer)
            bone = "" if obj in bound else carrying_bone(obj, subject.armature)
            if key not in taken and (obj in bound or bone or _follows(obj, bound | {subject.armature})):
                if obj.mode == "EDIT":
                    raise ExportError(f"The mesh {obj.name} is in Edit Mode; leave it first.")
                taken.add(key)
                surfaces.append(Surface(obj, subject, bone))
    return surfaces


def seen_meshes(
    depsgraph: bpy.types.Depsgraph, instancer: bpy.types.Object | None = None
) -> list[bpy.types.Object]:
    """The mesh objects of the scene, or of what an object instances, that are there both for the viewport,
    whose evaluation is read, and for a render."""
    layer = depsgraph.view_layer
    rendered = _rendered(depsgraph.scene.collection if instancer is None else instancer.instance_collection)
    return [
        obj
        for obj in rendered
        if obj.type == "MESH"
        and not obj.hide_render
        and obj.evaluated_get(depsgraph).is_evaluated
        and (instancer is not None or obj.visible_get(view_layer=layer))
    ]


def _rendered(collection: bpy.types.Collection) -> dict[bpy.types.Object, None]:
    """The objects of a collection and those in it, each once and in order, without collections that do not
    render."""
    if collection.hide_render:
        return {}
    objects = dict.fromkeys(collection.objects)
    for child in collection.children:
        objects |= _rendered(child)
    return objects


def _follows(obj: bpy.types.Object, leaders: set[bpy.types.Object]) -> bool:
    for modifier in obj.modifiers:
        target = {"SURFACE_DEFORM": "target", "MESH_DEFORM": "object"}.get(modifier.type)
        if target is not None and getattr(modifier, target) in leaders:
            return True
    parent = obj.parent
    while parent is not None and parent not in leaders:
        parent = parent.parent
    return parent is not None


class SurfaceReader:
    """Gives surfaces their triangles and labels, as the evaluated mesh of the current frame has them.

    `first_limb` has for each subject the index of its first limb; `joints` [K, 3] and `counts` [L] are the
    strokes of all limbs in world space. Vertices that no bone has a weight for go to the nearest limb.
    """

    def __init__(self, first_limb: dict[Subject, int], joints: np.ndarray, counts: np.ndarray):
        self._first_limb = first_limb
        self._strokes = np.split(joints, np.cumsum(counts)[:-1])

    def read(self, surface: Surface, evaluated: Callable[[], bpy.types.Depsgraph]) -> Iterator[None]:
        """Read a surface, pausing often: weights come vertex by vertex, about a microsecond each.
        `evaluated` gives the evaluated scene, anew after every pause, since others may have touched it.
        Raises `ExportError` if they have."""
        surface.placed(evaluated())  # some modifiers only run when the mesh is asked for
        yield
        mesh, world = surface.placed(evaluated())
        points = read_points(mesh)
        surface.triangles = read_triangles(mesh)
        surface.labels = np.zeros((len(points), STRONGEST), np.uint8)
        surface.weights = np.zeros((len(points), STRONGEST), np.float32)
        yield
        owners, first = surface.subject.choice.owners, self._first_limb[surface.subject] + 1
        if surface.bone in owners:
            surface.labels[:, 0] = first + owners[surface.bone]
            surface.weights[:, 0] = 1
            return
        of_group = np.array(
            [first + owners[g.name] if g.name in owners else 0 for g in surface.obj.vertex_groups] or [0]
        )
        for begin in range(0, len(points), BATCH):
            vertices = surface.placed(evaluated())[0].vertices
            if len(vertices) != len(points):
                raise ExportError(
                    f"The mesh of {surface.obj.name} was changed while it was exported; export again."
                )
            batch = range(begin, min(begin + BATCH, len(points)))
            found = [(i, group.group, group.weight) for i in batch for group in vertices[i].groups]
            if found:
                vertex, group, weight = np.array(found).T
                _strongest(
                    surface,
                    vertex.astype(np.int64),
                    of_group.take(group.astype(np.int64), mode="clip"),
                    weight,
                )
            yield
        used = max(1, int((surface.weights > 0).sum(axis=1).max(initial=0)))
        surface.labels, surface.weights = surface.labels[:, :used].copy(), surface.weights[:, :used].copy()
        bare = np.flatnonzero(surface.weights[:, 0] == 0)
        limbs = range(first - 1, first - 1 + len(surface.subject.choice.limbs))
        for begin in range(0, len(bare), BATCH):
            batch = bare[begin : begin + BATCH]
            placed = points[batch] @ world[:3, :3].T + world[:3, 3]
            surface.labels[batch, 0] = self._nearest(placed, limbs) + 1
            surface.weights[batch, 0] = 1
            yield

    def _nearest(self, points: np.ndarray, limbs: range) -> np.ndarray:
        away = np.full(len(points), np.inf)
        nearest = np.zeros(len(points), np.uint8)
        for limb in limbs:
            stroke = self._strokes[limb]
            for start, step in zip(stroke[:-1], np.diff(stroke, axis=0)):
                out = points - start
                along = np.clip(out @ step / max(float(step @ step), 1e-18), 0, 1)
                distance = ((out - along[:, None] * step) ** 2).sum(axis=1)
                nearer = distance < away
                away[nearer], nearest[nearer] = distance[nearer], limb
        return nearest


def _strongest(surface: Surface, vertex: np.ndarray, label: np.ndarray, weight: np.ndarray) -> None:
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
    surface.labels[vertex[kept], rank[kept]] = label[kept]
    surface.weights[vertex[kept], rank[kept]] = total[kept]
