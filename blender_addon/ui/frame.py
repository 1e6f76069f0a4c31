"""Where the clip lies in a 3D view that looks through the camera, and drawing there in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import bpy
import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader
from mathutils import Matrix

from .. import session
from ..errors import ExportError
from ..request.range import clip_range
from ..view import Fit, SceneCamera, fit

Box = tuple[float, float, float, float]
"""Left, bottom, right and top in pixels of a region."""


@cache
def builtin_shader(name: str) -> gpu.types.GPUShader:
    """One of Blender's own shaders; asking for it takes a quarter of a millisecond."""
    return gpu.shader.from_builtin(name)


def clip_fit(context) -> Fit | None:
    """How the camera's frame lies on the clip; None where the panel says what is wrong."""
    settings = context.scene.poseanything
    try:
        planned = clip_range(context, settings, session.get().engine(settings.engine_name))
    except ExportError:
        return None
    return fit(*SceneCamera().frame_size(context.scene), planned.width, planned.height)


def looked_through(context) -> bpy.types.Object | None:
    """The camera of a 3D view: one of its own, or the scene's."""
    space = context.space_data
    own = space is not None and space.type == "VIEW_3D" and space.use_local_camera
    return space.camera if own else context.scene.camera


def camera_box(context) -> Box | None:
    """The camera's frame; None where the view looks through no camera."""
    region_3d, camera = context.region_data, looked_through(context)
    if region_3d is None or region_3d.view_perspective != "CAMERA":
        return None
    if camera is None or camera.type != "CAMERA":
        return None
    corners = np.array(camera.data.view_frame(scene=context.scene))
    world = np.array(camera.matrix_world.normalized())
    seen = np.column_stack([corners, np.ones(4)]) @ world.T @ np.array(region_3d.perspective_matrix).T
    flat = (seen[:, :2] / seen[:, 3:] + 1) / 2 * (context.region.width, context.region.height)
    return (*flat.min(axis=0).tolist(), *flat.max(axis=0).tolist())


def box_of(context, placed: Fit | None) -> Box | None:
    """What of the camera's frame a fit leaves of it."""
    box = camera_box(context)
    return None if box is None or placed is None else clip_box(box, placed)


def clip_box(box: Box, placed: Fit) -> Box:
    """What a fit leaves of the camera's frame."""
    left, top, right, bottom = placed.shown
    x, y, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
    return x + left * width, y + (1 - bottom) * height, x + right * width, y + (1 - top) * height


@contextmanager
def region_pixels(context) -> Iterator[None]:
    """Draw in pixels of the region where the scene's own space is set."""
    width, height = context.region.width, context.region.height
    to_pixels = Matrix(((2 / width, 0, 0, -1), (0, 2 / height, 0, -1), (0, 0, 1, 0), (0, 0, 0, 1)))
    with gpu.matrix.push_pop(), gpu.matrix.push_pop_projection():
        gpu.matrix.load_matrix(Matrix.Identity(4))
        gpu.matrix.load_projection_matrix(to_pixels)
        gpu.state.depth_test_set("NONE")
        yield


@contextmanager
def only_within(box: Box) -> Iterator[None]:
    """Draw nothing outside of a box."""
    left, bottom, right, top = (round(side) for side in box)
    before = gpu.state.scissor_get()
    x, y = max(left, before[0]), max(bottom, before[1])
    right, top = min(right, before[0] + before[2]), min(top, before[1] + before[3])
    gpu.state.scissor_test_set(True)
    gpu.state.scissor_set(x, y, max(right - x, 0), max(top - y, 0))
    try:
        yield
    finally:
        gpu.state.scissor_set(*before)
        gpu.state.scissor_test_set(False)


def fill(boxes: list[Box], colour: tuple[float, float, float, float]) -> None:
    """Draw boxes of one colour."""
    shader = builtin_shader("UNIFORM_COLOR")
    shader.uniform_float("color", colour)
    gpu.state.blend_set("ALPHA")
    for left, bottom, right, top in boxes:
        corners = ((left, bottom), (right, bottom), (right, top), (left, top))
        batch_for_shader(shader, "TRI_FAN", {"pos": corners}).draw(shader)
    gpu.state.blend_set("NONE")


def draw_picture(
    texture: gpu.types.GPUTexture,
    box: Box,
    opacity: float,
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> None:
    """Draw a picture of sRGB values over a box."""
    left, bottom, right, top = box
    shader = builtin_shader("IMAGE_COLOR")
    corners = ((left, bottom), (right, bottom), (right, top), (left, top))
    batch = batch_for_shader(
        shader, "TRI_FAN", {"pos": corners, "texCoord": ((0, 0), (1, 0), (1, 1), (0, 1))}
    )
    gpu.state.blend_set("ALPHA")
    shader.uniform_sampler("image", texture)
    shader.uniform_float("color", (*tint, opacity))
    batch.draw(shader)
    gpu.state.blend_set("NONE")
