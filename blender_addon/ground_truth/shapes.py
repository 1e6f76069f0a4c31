"""What objects look like in the frame that is evaluated."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import bpy
import numpy as np
from mathutils import Matrix

from ..rig.animation import modifier_objects
from ..rig.skin import FLESH_TYPES, read_corners, read_points, read_triangles
from ..rig.strands import STRAND_TYPES, read_hair, read_strands
from .visibility import is_clear, meets_camera

MAX_INSTANCES = 20_000
"""Instances looked at in a frame."""
REWIRING = frozenset(
    {"NODES", "MESH_SEQUENCE_CACHE", "BOOLEAN", "REMESH", "DECIMATE", "SKIN", "BUILD", "EXPLODE", "FLUID"}
)
"""Modifiers by which as many vertices and faces may be others in another frame."""


@dataclass(frozen=True, eq=False)
class Shape:
    """What an object, or all that it instances, is in one frame: `points` [V, 3], which the matrix `world`
    [4, 4] takes to world space, `triangles` [T, 3] of them, and `make`, which tells apart vertices and faces
    that are connected otherwise. Of what has no faces but is drawn in strands, `roots` [V] are the points
    that each one belongs to."""

    points: np.ndarray
    triangles: np.ndarray
    world: np.ndarray
    make: tuple[int, int]
    roots: np.ndarray | None = None


NOTHING = Shape(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.eye(4), (0, 0))


class ShapeReader:
    """Reads shapes. Triangles are read anew where an object's make has changed; else their array is the one
    that was read before."""

    def __init__(self) -> None:
        self._triangles: dict[tuple[bpy.types.Object, str], tuple[tuple[int, int], np.ndarray]] = {}
        self.too_many = False
        """Whether there were more instances in a frame than are looked at."""

    def read(
        self, obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph, most: float = math.inf
    ) -> Shape | None:
        """What an object is by itself, None where it has more than `most` faces."""
        evaluated = obj.evaluated_get(depsgraph)
        world = np.array(evaluated.matrix_world, np.float64)
        if obj.type in STRAND_TYPES:
            return self._stranded(obj, "STRANDS", read_strands(evaluated), world)
        with _evaluated_mesh(obj, depsgraph) as mesh:
            if mesh is None:
                return NOTHING
            if len(mesh.polygons) > most:
                return None
            make = len(mesh.vertices), len(mesh.polygons)
            if obj.type != "MESH" or any(modifier.type in REWIRING for modifier in obj.modifiers):
                make = len(mesh.vertices), zlib.crc32(read_corners(mesh), len(mesh.polygons))
            triangles = self._known(obj, "OBJECT", make, lambda: _seen_triangles(evaluated, mesh, depsgraph))
            return Shape(read_points(mesh), triangles, world, make)

    def read_hair(self, obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> Shape:
        """The hair that an object's particles make."""
        return self._stranded(obj, "HAIR", read_hair(obj.evaluated_get(depsgraph)), np.eye(4))

    def read_instances(
        self, depsgraph: bpy.types.Depsgraph, instancers: set[bpy.types.Object] | None = None
    ) -> dict[bpy.types.Object, Shape]:
        """What instancers, or all, instance in world space, however deep: for each all its instances
        together."""
        found = {}
        instanced, complete = _instanced(depsgraph, instancers)
        self.too_many |= not complete
        for obj, (points, triangles) in instanced.items():
            make = len(points), zlib.crc32(triangles)
            known = self._known(obj, "INSTANCES", make, lambda triangles=triangles: triangles)
            found[obj] = Shape(points, known, np.eye(4), make)
        return found

    def _stranded(self, obj: bpy.types.Object, kind: str, strands, world: np.ndarray) -> Shape:
        points, triangles, roots = strands
        make = len(points), zlib.crc32(triangles)  # as many points may be other strands
        return Shape(points, self._known(obj, kind, make, lambda: triangles), world, make, roots)

    def _known(
        self, obj: bpy.types.Object, kind: str, make: tuple[int, int], read: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """The triangles of one kind that an object of a make has."""
        before, triangles = self._triangles.get((obj, kind), (None, None))
        if make != before:
            triangles = read()
            self._triangles[obj, kind] = make, triangles
        return triangles


def _seen_triangles(
    evaluated: bpy.types.Object, mesh: bpy.types.Mesh, depsgraph: bpy.types.Depsgraph
) -> np.ndarray:
    """[T, 3] the triangles of an object's mesh whose material shows."""
    clear = np.array([is_clear(slot.material, depsgraph) for slot in evaluated.material_slots], bool)
    if not clear.any():
        return read_triangles(mesh)
    slots = np.empty(len(mesh.polygons), np.int32)
    mesh.polygons.foreach_get("material_index", slots)
    return read_triangles(mesh, ~clear.take(slots, mode="clip"))


@contextmanager
def _evaluated_mesh(obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> Iterator[bpy.types.Mesh | None]:
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


def _named(instancer: bpy.types.Object) -> set[bpy.types.Object]:
    """The objects that an object's Geometry Nodes name: instances of these render, hidden or not."""
    nodes = (modifier for modifier in instancer.modifiers if modifier.type == "NODES")
    return {obj for modifier in nodes for obj in modifier_objects(modifier)}


def _instanced(
    depsgraph: bpy.types.Depsgraph, instancers: set[bpy.types.Object] | None
) -> tuple[dict[bpy.types.Object, tuple[np.ndarray, np.ndarray]], bool]:
    """What objects instance in the frame that is evaluated, however deep: for each the points [V, 3] in
    world space and triangles [T, 3] of all its instances together; and whether these are all."""
    # By its object, too, which may have materials of its own for it.
    meshes: dict[tuple[bpy.types.Object, bpy.types.ID], tuple[np.ndarray, np.ndarray]] = {}
    placed: dict[bpy.types.Object, dict[tuple, list[Matrix]]] = {}
    named = cache(_named)
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
        hidden = obj.original.hide_render and obj.original not in named(owner)
        if hidden or owner.hide_render or not meets_camera(obj, depsgraph):
            continue
        key = obj.original, obj.data
        if key not in meshes:
            meshes[key] = _instanced_surface(obj, depsgraph)
        placed.setdefault(owner, {}).setdefault(key, []).append(instance.matrix_world.copy())
    return {owner: _together(meshes, pieces) for owner, pieces in placed.items()}, seen <= MAX_INSTANCES


def _instanced_surface(
    obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph
) -> tuple[np.ndarray, np.ndarray]:
    """Points [V, 3] of an evaluated object in its own space, and triangles [T, 3]."""
    if obj.type == "MESH":
        return read_points(obj.data), _seen_triangles(obj, obj.data, depsgraph)
    if obj.type in STRAND_TYPES:
        return read_strands(obj)[:2]
    mesh = obj.to_mesh()
    surface = read_points(mesh), read_triangles(mesh)
    obj.to_mesh_clear()
    return surface


def _together(meshes: dict[tuple, tuple], placed: dict[tuple, list[Matrix]]) -> tuple[np.ndarray, np.ndarray]:
    """Points [V, 3] in world space and triangles [T, 3] of several meshes, each as often as it is placed."""
    every, corners, count = [], [], 0
    for key, places in placed.items():
        points, triangles = meshes[key]
        matrices = np.array(places, np.float64)
        moved = points @ matrices[:, :3, :3].transpose(0, 2, 1) + matrices[:, None, :3, 3]
        begins = count + len(points) * np.arange(len(places))
        every.append(moved.reshape(-1, 3).astype(np.float32))
        corners.append((triangles + begins[:, None, None]).reshape(-1, 3).astype(np.int32))
        count += len(points) * len(places)
    return np.concatenate(every), np.concatenate(corners)
