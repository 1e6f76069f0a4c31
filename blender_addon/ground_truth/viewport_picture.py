"""The picture of a 3D view, drawn at once with the view's own shading."""

from __future__ import annotations

import contextlib

import bpy
import gpu
import numpy as np
from mathutils import Matrix

from ..errors import ExportError
from ..texts import say
from ..view import Fit
from ..view.camera import Lens


def draw_viewport(
    scene: bpy.types.Scene,
    view_layer: bpy.types.ViewLayer,
    space: bpy.types.SpaceView3D,
    region: bpy.types.Region,
    lens: Lens,
    placed: Fit,
) -> np.ndarray:
    """[H, W, 3] uint8 sRGB: the scene at its current frame through a lens, in the shading of a 3D view and
    without its overlays, scaled and cropped by a fit. Raises `ExportError` where nothing can be drawn."""
    if bpy.app.background:
        raise ExportError(
            "The viewport can be drawn in a window only; choose another source of the first frame."
        )
    width, height = placed.scaled_width, placed.scaled_height
    with contextlib.ExitStack() as restored:
        restored.callback(setattr, space.overlay, "show_overlays", space.overlay.show_overlays)
        restored.callback(setattr, space, "show_gizmo", space.show_gizmo)
        space.overlay.show_overlays = space.show_gizmo = False
        try:
            offscreen = gpu.types.GPUOffScreen(width, height)
        except Exception as error:
            raise ExportError(
                say(
                    "The viewport can't be drawn at {width} x {height} ({error}); choose a smaller size.",
                    width=width,
                    height=height,
                    error=error,
                )
            ) from error
        restored.callback(offscreen.free)
        offscreen.draw_view3d(
            scene,
            view_layer,
            space,
            region,
            Matrix(lens.view.tolist()),
            Matrix(lens.projection.tolist()),
            do_color_management=True,
        )
        with offscreen.bind():
            buffer = gpu.state.active_framebuffer_get().read_color(0, 0, width, height, 4, 0, "UBYTE")
    buffer.dimensions = width * height * 4
    pixels = np.array(buffer, np.uint8).reshape(height, width, 4)[::-1, :, :3]
    return pixels[placed.top : placed.top + placed.height, placed.left : placed.left + placed.width]
