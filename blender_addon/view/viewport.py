"""Seeing through a 3D viewport."""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import numpy as np

from ..texts import say
from .camera import Lens, SceneCamera

SENSOR = 36.0
"""Sensor width, in millimetres, of the camera that stands in for a viewport."""


@dataclass(frozen=True, eq=False)
class Viewport:
    """A viewport as it was when it was looked at: the same lens in every frame."""

    frozen: Lens
    width: int
    height: int

    @classmethod
    def from_context(cls, space: bpy.types.SpaceView3D, region: bpy.types.Region) -> Viewport | SceneCamera:
        """The view of a region of a 3D viewport; in camera view, that camera itself."""
        region_3d = region.data or space.region_3d
        if region_3d.view_perspective == "CAMERA":
            return SceneCamera(space.camera if space.use_local_camera else None)
        perspective = bool(region_3d.is_perspective)
        lens = Lens(
            view=np.array(region_3d.view_matrix, np.float64),
            projection=np.array(region_3d.window_matrix, np.float64),
            near=space.clip_start if perspective else -space.clip_end,
            perspective=perspective,
        )
        return cls(lens, region.width, region.height)

    def record(self) -> dict:
        """The view as JSON-able values."""
        lens = self.frozen
        return {
            "view": lens.view.tolist(),
            "projection": lens.projection.tolist(),
            "near": lens.near,
            "perspective": lens.perspective,
            "width": self.width,
            "height": self.height,
        }

    @classmethod
    def from_record(cls, kept: dict) -> Viewport:
        """The view that `record` gave."""
        lens = Lens(
            view=np.array(kept["view"], np.float64),
            projection=np.array(kept["projection"], np.float64),
            near=kept["near"],
            perspective=kept["perspective"],
        )
        return cls(lens, kept["width"], kept["height"])

    def frame_size(self, scene: bpy.types.Scene) -> tuple[float, float]:
        return float(self.width), float(self.height)

    def name(self, scene: bpy.types.Scene) -> str:
        return say("the viewport")

    def lens(self, scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> Lens:
        return self.frozen

    def stand_in(self, camera: bpy.types.Camera) -> np.ndarray:
        """Set up a camera to show what the viewport shows, in a render of the same aspect; gives its world
        matrix."""
        projection = self.frozen.projection
        placed = np.linalg.inv(self.frozen.view)
        camera.sensor_fit = "HORIZONTAL"
        camera.sensor_width = SENSOR
        if self.frozen.perspective:
            camera.type = "PERSP"
            camera.lens = projection[0, 0] * SENSOR / 2
            camera.shift_x = projection[0, 2] / 2
            camera.shift_y = projection[1, 2] / 2 * self.height / self.width
            camera.clip_start = projection[2, 3] / (projection[2, 2] - 1)
            camera.clip_end = projection[2, 3] / (projection[2, 2] + 1)
        else:
            # An orthographic viewport sees what is behind it as well: step back to have it all in front.
            depth = 1 / abs(projection[2, 2])
            centre = placed @ [
                -projection[0, 3] / projection[0, 0],
                -projection[1, 3] / projection[1, 1],
                depth,
                1.0,
            ]
            placed[:, 3] = centre
            camera.type = "ORTHO"
            camera.shift_x = camera.shift_y = 0.0
            camera.ortho_scale = 2 / projection[0, 0]
            camera.clip_start, camera.clip_end = 1e-3, 2 * depth
        return placed
