"""Rays through the scene."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import bpy
import numpy as np
from mathutils import Vector

from .projection import Projector, to_pixels

PATIENCE = 16
"""Surfaces of the subjects that a ray may pass before it is given up."""


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


def cast_ray(
    scene: bpy.types.Scene,
    depsgraph: bpy.types.Depsgraph,
    start: np.ndarray,
    ray: np.ndarray,
    is_subject: Callable[[bpy.types.Object], bool],
) -> Hit | None:
    """What a ray from `start` [3] along `ray` [3] first meets that is no subject; None when nothing is
    there."""
    way = Vector(ray)
    for _ in range(PATIENCE):
        hit, place, _, face, obj, _ = scene.ray_cast(depsgraph, start, way)
        if not hit:
            return None
        if not is_subject(obj):
            return Hit(place, face, obj)
        start = place + way * (1e-4 * (1 + place.length))
    return None
