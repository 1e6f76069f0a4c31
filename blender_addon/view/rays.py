"""Rays through the scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import bpy
import numpy as np
from mathutils import Matrix, Vector

from .projection import Projector, to_pixels

PATIENCE = 16
"""Surfaces of the subjects that a ray may pass before it is given up."""
PAST = 1e-5
"""A ray goes on so far past a surface, in parts of its way there or of how far from the origin that is: a few
times what single precision tells apart, in a scene of any size."""

SOLID_TYPES = frozenset({"MESH", "CURVE", "SURFACE", "FONT", "META"})
"""Types of objects that rays may meet."""


class Hit(NamedTuple):
    """What a ray meets: a `place` in world space on a `face` of an evaluated object."""

    place: Vector
    face: int
    obj: bpy.types.Object


def rays_through(projector: Projector, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, 3] where rays through `pixels` [N, 2] of the first frame begin, and [N, 3] their unit directions,
    in world space."""
    fit, lens = projector.fit, projector.lenses[0]
    device = (np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(to_pixels(fit)).T)[:, :2]
    unproject = np.linalg.inv(lens.projection @ lens.view)

    def at(depth: float) -> np.ndarray:
        points = np.column_stack([device, np.full(len(device), depth), np.ones(len(device))]) @ unproject.T
        return points[:, :3] / points[:, 3:]

    starts = at(-1.0)
    rays = at(0.0) - starts
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return starts, rays


def cast_rays(
    scene: bpy.types.Scene,
    depsgraph: bpy.types.Depsgraph,
    starts: np.ndarray,
    rays: np.ndarray,
    is_subject: Callable[[bpy.types.Object], bool],
) -> list[Hit | None]:
    """What each of N rays from `starts` [N, 3] along the unit directions `rays` [N, 3] first meets that is no
    subject; None when nothing is there."""
    solids = _find_solids(depsgraph, is_subject)
    if solids is None:
        return [_cast_through(scene, depsgraph, *ray, is_subject) for ray in zip(starts, rays)]
    entries = _enter(solids, starts, rays)
    counts = np.isfinite(entries).sum(axis=1)
    order = entries.argsort(axis=1)[:, : counts.max(initial=0)]
    near = np.take_along_axis(entries, order, axis=1)
    return [
        _cast_at([solids[k] for k in first[:count]], begins, Vector(start), Vector(ray))
        for start, ray, first, begins, count in zip(
            starts, rays, order.tolist(), near.tolist(), counts.tolist()
        )
    ]


class _Solid(NamedTuple):
    """An evaluated mesh object, the way from its space to the world, and back, and the way back of
    directions."""

    obj: bpy.types.Object
    world: Matrix
    local: Matrix
    turned: Matrix


def _find_solids(
    depsgraph: bpy.types.Depsgraph, is_subject: Callable[[bpy.types.Object], bool]
) -> list[_Solid] | None:
    """All but the subjects that a ray may meet; None where some of it is no object's own mesh. A ray through
    the scene asks every object in turn, and sorts the triangles of the subjects anew, which are passed."""
    found = []
    for instance in depsgraph.object_instances:
        obj = instance.object
        if obj.type not in SOLID_TYPES or not instance.show_self or is_subject(obj):
            continue
        if instance.is_instance or obj.type != "MESH" or obj.original.type != "MESH":
            return None
        world = obj.matrix_world.copy()
        local = world.inverted_safe()
        found.append(_Solid(obj.original.evaluated_get(depsgraph), world, local, local.to_3x3()))
    return found


def _enter(solids: Sequence[_Solid], starts: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """[N, O] how far along each ray the box around each object begins, infinite where the ray misses it."""
    boxes = np.array([solid.obj.bound_box for solid in solids]).reshape(-1, 8, 3)
    world = np.array([solid.world for solid in solids]).reshape(-1, 4, 4)
    corners = boxes @ world[:, :3, :3].transpose(0, 2, 1) + world[:, None, :3, 3]
    room = 1e-4 * np.abs(corners).max(axis=1)
    sides = corners.min(axis=1) - room, corners.max(axis=1) + room
    low, high, starts, rays = (array.astype(np.float32) for array in (*sides, starts, rays))
    shape = len(rays), len(solids)
    begin, end = np.zeros(shape, np.float32), np.full(shape, np.inf, np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        for axis in range(3):
            start, step = starts[:, None, axis], 1 / rays[:, None, axis]
            one, other = (low[:, axis] - start) * step, (high[:, axis] - start) * step
            np.fmax(begin, np.fmin(one, other), out=begin)
            np.fmin(end, np.fmax(one, other), out=end)
    return np.where(begin <= end, begin, np.inf)


def _cast_at(solids: Sequence[_Solid], begins: Sequence[float], start: Vector, ray: Vector) -> Hit | None:
    """What a ray meets of objects whose boxes begin so far along it, the nearest first."""
    found, nearest = None, np.inf
    for solid, begin in zip(solids, begins):
        if begin >= nearest:
            break
        hit, place, _, face = solid.obj.ray_cast(solid.local @ start, solid.turned @ ray)
        if hit:
            place = solid.world @ place
            away = (place - start).dot(ray)
            if away < nearest:
                found, nearest = Hit(place, face, solid.obj), away
    return found


def _cast_through(
    scene: bpy.types.Scene,
    depsgraph: bpy.types.Depsgraph,
    start: np.ndarray,
    ray: np.ndarray,
    is_subject: Callable[[bpy.types.Object], bool],
) -> Hit | None:
    """What a ray through all of the scene meets first that is no subject."""
    start, way = Vector(start), Vector(ray)
    for _ in range(PATIENCE):
        hit, place, _, face, obj, _ = scene.ray_cast(depsgraph, start, way)
        if not hit:
            return None
        if not is_subject(obj):
            return Hit(place, face, obj)
        start = place + way * (PAST * max((place - start).length, place.length))
    return None
