"""How far away everything is that renders, at each pixel's centre, from the meshes and without a render."""

from __future__ import annotations

from collections.abc import Iterator

import bpy
import numpy as np

from ..rig.skin import FLESH_TYPES, read_points, read_triangles
from ..view.projection import Projector
from .surfaces import evaluated_mesh, instanced, rendered_objects
from .triangles import Camera, draw_triangles
from .visibility import is_shown
from .zbuffer import ZBuffer


class DepthDrawer:
    """Draws the depth of a scene's frames. Volumes, hair and displacement that only rendering makes are not
    in it."""

    def __init__(self, depsgraph: bpy.types.Depsgraph):
        self._objects = [
            obj for obj in rendered_objects(depsgraph) if obj.type in FLESH_TYPES and obj.mode != "EDIT"
        ]
        self._triangles: dict[bpy.types.Object, tuple[tuple[int, int], np.ndarray]] = {}

    def draw(self, depsgraph: bpy.types.Depsgraph, projector: Projector) -> Iterator[None]:
        """The current frame through a one-frame projector, pausing on the way; the generator's return value
        is [H, W] float32, in scene units along the camera's axis, infinite where nothing is. What is needed
        of the scene is copied at once."""
        shapes = [self._shape(obj, depsgraph) for obj in self._objects if is_shown(obj, depsgraph)]
        for points, triangles in instanced(depsgraph).values():
            shapes.append((points, triangles, np.eye(4)))
        return self._draw(shapes, projector)

    @staticmethod
    def _draw(shapes, projector: Projector) -> Iterator[None]:
        fit, perspective = projector.fit, projector.lenses[0].perspective
        camera, buffer = Camera.of(projector, 1.0), ZBuffer(fit.width, fit.height)
        yield
        for points, triangles, world in shapes:
            if len(triangles):
                numbers = np.zeros(len(triangles), np.int32)
                yield from draw_triangles(buffer, camera.see(points, world), triangles, numbers)
        nearness = buffer.nearness.reshape(fit.height, fit.width)
        with np.errstate(divide="ignore"):
            depth = 1 / nearness if perspective else -nearness
        return np.where(np.isfinite(nearness), depth, np.inf).astype(np.float32)

    def _shape(self, obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph):
        world = np.array(obj.evaluated_get(depsgraph).matrix_world, np.float64)
        with evaluated_mesh(obj, depsgraph) as mesh:
            if mesh is None:
                return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), world
            make = len(mesh.vertices), len(mesh.polygons)
            before, triangles = self._triangles.get(obj, (None, None))
            if make != before:
                triangles = read_triangles(mesh)
                self._triangles[obj] = make, triangles
            return read_points(mesh), triangles, world
