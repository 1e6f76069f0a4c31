"""How far away everything is that renders, at each pixel's centre, from the meshes and without a render."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import bpy
import numpy as np

from ..rig.skin import FLESH_TYPES
from ..rig.strands import has_hair
from ..view.projection import Projector
from .shapes import Shape, ShapeReader
from .surfaces import rendered_objects
from .triangles import Camera, draw_triangles
from .visibility import is_shown
from .zbuffer import ZBuffer


class DepthDrawer:
    """Draws the depth of a scene's frames. Volumes and displacement that only rendering makes are not in
    it."""

    def __init__(self, depsgraph: bpy.types.Depsgraph):
        self._objects = [
            obj for obj in rendered_objects(depsgraph) if obj.type in FLESH_TYPES and obj.mode != "EDIT"
        ]
        self._shapes = ShapeReader()

    def draw(self, depsgraph: bpy.types.Depsgraph, projector: Projector) -> Iterator[None]:
        """The current frame through a one-frame projector, pausing on the way; the generator's return value
        is [H, W] float32, in scene units along the camera's axis, infinite where nothing is. What is needed
        of the scene is copied at once."""
        shown = [obj for obj in self._objects if is_shown(obj, depsgraph)]
        shapes = [self._shapes.read(obj, depsgraph) for obj in shown]
        hair = [self._shapes.read_hair(obj, depsgraph) for obj in shown if has_hair(obj)]
        return self._draw([*shapes, *hair, *self._shapes.read_instances(depsgraph).values()], projector)

    @staticmethod
    def _draw(shapes: Sequence[Shape], projector: Projector) -> Iterator[None]:
        fit, perspective = projector.fit, projector.lenses[0].perspective
        camera, buffer = Camera.of(projector, 1.0), ZBuffer(fit.width, fit.height)
        yield
        for shape in shapes:
            if len(shape.triangles):
                seen = camera.see(shape.points, shape.world)
                numbers = np.zeros(len(shape.triangles), np.int32)
                yield from draw_triangles(buffer, seen, shape.triangles, numbers)
        nearness = buffer.nearness.reshape(fit.height, fit.width)
        with np.errstate(divide="ignore"):
            depth = 1 / nearness if perspective else -nearness
        return np.where(np.isfinite(nearness), depth, np.inf).astype(np.float32)
