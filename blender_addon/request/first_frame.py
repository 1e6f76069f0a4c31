"""The first frame from the source that the user chose, as a picture file for the export."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import bpy
import numpy as np

from ..buttons import OPEN_VIDEO, RENDER_INSTEAD, USE_CAMERA
from ..errors import ExportError
from ..ground_truth.filmed import film
from ..ground_truth.last_render import read_last_render
from ..ground_truth.png import encode_png
from ..ground_truth.scene_render import FrameRender, is_animation_frame, render_frame
from ..ground_truth.viewport_picture import draw_viewport
from ..rig.unkeyed import unkeyed_kept
from ..sequencer import footage
from ..texts import say
from ..times import go_to
from ..view import SceneCamera, Viewport, fit
from .export import ExportStep, under_step
from .range import ClipRange
from .view import find_viewport

RENDER, VIEWPORT, LAST_RENDER, PICTURE = "RENDER", "VIEWPORT", "LAST_RENDER", "PICTURE"
VIDEO = "VIDEO"
OF_NOW = RENDER, VIEWPORT, VIDEO
"""Sources that show the clip's first frame as it is. Since the last render the rig may have moved."""
MOST_OF_VIDEO = 2048
"""Pixels of the longer side of a video's frame."""


def make_first_frame(
    context,
    settings,
    clip_range: ClipRange,
    view: SceneCamera | Viewport,
    scratch: Path,
    interactive: bool,
) -> Generator[ExportStep, None, str]:
    """Step by step: the path of the first frame's picture, which is written into the folder `scratch` unless
    it is the user's own file.

    interactive: whether the window's events are handled between two steps, so that Blender can render
        beside its user. Raises `ExportError`.
    """
    with _offering_a_render(settings):
        if settings.first_frame_source == PICTURE:
            if not settings.first_frame_path:
                raise ExportError(
                    "Choose the picture that the clip begins with, or another source of the first frame."
                )
            return bpy.path.abspath(settings.first_frame_path)
        if settings.first_frame_source == VIDEO:
            yield ExportStep(0.02, "Reading the video's first frame")
            path = scratch / "first_frame.png"
            path.write_bytes(film_frame(context.scene, clip_range.times.start))
            return str(path)
        if settings.first_frame_source == LAST_RENDER:
            if not isinstance(view, SceneCamera):
                raise ExportError(
                    "The last render is seen through a camera; set the view to Camera.",
                    *USE_CAMERA,
                )
            pixels = read_last_render(context.scene, view.find(context.scene), clip_range.times.start)
        elif settings.first_frame_source == VIEWPORT:
            yield ExportStep(0.02, say("Drawing the first frame"))
            pixels = _draw(context, clip_range, view)
        else:
            pixels = yield from _render(context.scene, clip_range, view, interactive)
        path = scratch / "first_frame.png"
        path.write_bytes(
            (yield from under_step(ExportStep(0.04, say("Saving the first frame")), encode_png(pixels)))
        )
        return str(path)


@contextmanager
def _offering_a_render(settings) -> Iterator[None]:
    """Errors within that no other button helps against have one that takes a render for the first frame."""
    try:
        yield
    except ExportError as error:
        if settings.first_frame_source != RENDER:
            error.button = error.button or RENDER_INSTEAD
        raise


def film_frame(scene: bpy.types.Scene, frame: float) -> bytes:
    """A PNG file of what the scene's video shows at a frame of the scene. Raises `ExportError`."""
    found = footage.find(scene.poseanything_video.strip)
    if found is None:
        raise ExportError(
            "The video is not in the sequencer any more; choose one in the Video panel.", *OPEN_VIDEO
        )
    edit, strip = found
    at = round(footage.edit_frame(scene, edit, frame))
    [(data, _, _)] = film(edit, strip, range(at, at + 1), MOST_OF_VIDEO, "png")
    return data


def _render(
    scene: bpy.types.Scene, clip_range: ClipRange, view: SceneCamera | Viewport, interactive: bool
) -> Generator[ExportStep, None, np.ndarray]:
    placed = fit(*view.frame_size(scene), clip_range.width, clip_range.height)
    yield ExportStep(0.0, say("Rendering the first frame"))
    start = clip_range.times.start
    if not interactive or not is_animation_frame(start):
        return render_frame(scene, view, placed, start)
    job = FrameRender(scene, view, placed, int(start))
    try:
        while not job.ended:
            yield ExportStep(job.fraction, say("Rendering the first frame"), waiting=True)
        return job.result()
    finally:
        job.close()


def _draw(context, clip_range: ClipRange, view: SceneCamera | Viewport) -> np.ndarray:
    scene = context.scene
    found = find_viewport(context)
    if found is None:
        raise ExportError(
            "There is no 3D view to take the picture from; choose another source of the first frame."
        )
    camera = scene.camera
    try:
        with unkeyed_kept(scene, scene.frame_current, scene.frame_subframe):
            go_to(scene, clip_range.times.start)
            lens = view.lens(scene, context.evaluated_depsgraph_get())
            placed = fit(*view.frame_size(scene), clip_range.width, clip_range.height)
            return draw_viewport(scene, context.view_layer, *found, lens, placed)
    finally:
        scene.camera = camera
