"""Seeing through the scene's camera."""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import numpy as np
from mathutils import Matrix

from ..buttons import FRAME_SUBJECT, sets_of
from ..errors import ExportError
from ..texts import say

FLAT = 1e-6
"""Three unit vectors that span less volume than this lie in a plane."""


@dataclass(frozen=True, eq=False)
class Lens:
    """How one frame is seen.

    `view` [4, 4] takes world space to camera space (x right, y up, looking down -z), `projection` [4, 4]
    from there to normalised device coordinates of the whole frame, from -1 to 1, y up; both float64. What
    is nearer than `near` (in scene units) can't be seen. `perspective` is false for an orthographic lens.
    """

    view: np.ndarray
    projection: np.ndarray
    near: float
    perspective: bool

    @property
    def far(self) -> float:
        """The distance, in scene units, beyond which nothing is seen."""
        scale, shift = self.projection[2, 2:]
        if not self.perspective:
            return float((shift - 1) / scale)
        return float(shift / (scale + 1)) if scale != -1 else np.inf

    @property
    def eye(self) -> np.ndarray:
        """[3] from where it looks, in world space; of an orthographic one a place far behind it."""
        placed = np.linalg.inv(self.view)
        return placed[:3, 3] if self.perspective else placed[:3, 3] + 1e6 * placed[:3, 2]


def render_size(scene: bpy.types.Scene) -> tuple[float, float]:
    """Width and height of the render as it is looked at, in the units of one square pixel."""
    render = scene.render
    return render.resolution_x * render.pixel_aspect_x, render.resolution_y * render.pixel_aspect_y


@dataclass(frozen=True)
class SceneCamera:
    """The scene's active camera, whichever that is in each frame (markers may switch it), or one `camera`
    throughout."""

    camera: bpy.types.Object | None = None

    def frame_size(self, scene: bpy.types.Scene) -> tuple[float, float]:
        return render_size(scene)

    def find(self, scene: bpy.types.Scene) -> bpy.types.Object:
        """The camera at the scene's current frame. Raises `ExportError` when there is none or it has no
        flat picture."""
        camera = self.camera or scene.camera
        if camera is None:
            raise ExportError(
                "The scene has no camera; add one, or choose the viewport as view.", *FRAME_SUBJECT
            )
        if camera.type != "CAMERA":
            raise ExportError(
                say(
                    "{camera} is no camera but the scene looks through it; choose a camera.",
                    camera=camera.name,
                )
            )
        if camera.data.type not in {"PERSP", "ORTHO"}:
            raise ExportError(
                say(
                    "The camera {camera} is neither perspective nor orthographic, so bones can't be drawn "
                    "straight; change its type.",
                    camera=camera.name,
                ),
                *sets_of("Use Perspective", "cameras", camera.data.name, "type", "PERSP"),
            )
        return camera

    def name(self, scene: bpy.types.Scene) -> str:
        """What the clip is seen through at the scene's current frame."""
        return self.find(scene).name

    def lens(self, scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> Lens:
        """The lens at the scene's current frame, sensor fit, shift and pixel aspect included. Raises as
        `find` does."""
        camera = self.find(scene).evaluated_get(depsgraph)
        data = camera.data
        frame = np.array(data.view_frame(scene=scene), np.float64)
        (left, bottom, depth), (right, top, _) = frame.min(axis=0), frame.max(axis=0)
        near, far = data.clip_start, data.clip_end
        width, height = right - left, top - bottom
        if data.type == "PERSP":
            projection = [
                [-2 * depth / width, 0, (right + left) / width, 0],
                [0, -2 * depth / height, (top + bottom) / height, 0],
                [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)],
                [0, 0, -1, 0],
            ]
        else:
            projection = [
                [2 / width, 0, 0, -(right + left) / width],
                [0, 2 / height, 0, -(top + bottom) / height],
                [0, 0, -2 / (far - near), -(far + near) / (far - near)],
                [0, 0, 0, 1],
            ]
        # Cameras ignore their scale, as rendering does.
        turned = camera.matrix_world.normalized()
        if not abs(turned.determinant()) > FLAT:  # nor is what is not a number
            raise ExportError(
                say(
                    "The camera {camera} looks nowhere, since its scale is 0; set it to 1.",
                    camera=camera.name,
                )
            )
        view = _inverse(turned)
        return Lens(view, np.array(projection), near, data.type == "PERSP")


def _inverse(matrix: Matrix) -> np.ndarray:
    """The inverse of an affine matrix in double precision, in a fraction of the time that LAPACK takes to
    be called."""
    (a, b, c, x), (d, e, f, y), (g, h, i, z), _ = (tuple(row) for row in matrix)
    first, second, third = e * i - f * h, f * g - d * i, d * h - e * g
    scale = 1 / (a * first + b * second + c * third)
    rows = [
        [first * scale, (c * h - b * i) * scale, (b * f - c * e) * scale],
        [second * scale, (a * i - c * g) * scale, (c * d - a * f) * scale],
        [third * scale, (b * g - a * h) * scale, (a * e - b * d) * scale],
    ]
    return np.array([*([p, q, r, -(p * x + q * y + r * z)] for p, q, r in rows), [0.0, 0.0, 0.0, 1.0]])
