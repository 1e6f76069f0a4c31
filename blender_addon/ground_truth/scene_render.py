"""One frame of the scene, rendered with its own engine and settings on the clip's pixels.

What is rendered is a copy of the scene that shares its objects: nothing of the user's needs to be changed and
put back, however long it takes.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

from .. import threads
from ..errors import ExportCancelled, ExportError
from ..rig.unkeyed import unkeyed_kept
from ..texts import say
from ..times import go_to
from ..view import Fit, SceneCamera, Viewport
from .first_frame import read_picture

NAME = "PoseAnything First Frame"
FOLDER = "poseanything-render-"
MARK = "poseanything_temporary"
"""The custom property by which everything made here is known."""


def render_frame(
    scene: bpy.types.Scene, view: SceneCamera | Viewport, placed: Fit, frame: float
) -> np.ndarray:
    """[H, W, 3] uint8 sRGB: a frame of the scene as it is seen, scaled and cropped by a fit. Raises
    `ExportError` when rendering fails."""
    with unkeyed_kept(scene, scene.frame_current, scene.frame_subframe):
        copy = _stage(scene, view, placed, frame)
        try:
            animated = is_animation_frame(frame)
            if not animated:
                go_to(scene, frame)
            call_render("EXEC_DEFAULT", copy, animation=animated)
            return _result(copy, placed)
        finally:
            _discard(copy)


def is_animation_frame(frame: float) -> bool:
    """Whether a render of an animation may have the frame: these begin at 0 and have whole frames."""
    return frame >= 0 and frame == int(frame)


class FrameRender:
    """The same as Blender's own render job, which lets the window live and ends with Esc.

        job = FrameRender(scene, view, placed, frame)
        try:
            while not job.ended:
                ...  # let the window's events be handled
            pixels = job.result()
        finally:
            job.close()

    `frame` is one that an animation may have. Raises `ExportError` when the render can't be begun.
    """

    def __init__(self, scene: bpy.types.Scene, view: SceneCamera | Viewport, placed: Fit, frame: int):
        self._placed = placed
        with unkeyed_kept(scene, scene.frame_current, scene.frame_subframe):  # the copy shares its objects
            self._copy = _stage(scene, view, placed, frame)
        self._state = ""
        self._statistics = ""
        handlers = bpy.app.handlers
        self._handlers: tuple[tuple[list, Callable], ...] = (
            (handlers.render_complete, self._on_complete),
            (handlers.render_cancel, self._on_cancel),
            (handlers.render_stats, self._on_statistics),
        )
        for listed, handler in self._handlers:
            listed.append(handler)
        try:
            call_render("INVOKE_DEFAULT", self._copy, animation=True)
        except ExportError:
            self.close()
            raise

    @property
    def ended(self) -> bool:
        return not bpy.app.is_job_running("RENDER")

    @property
    def fraction(self) -> float:
        """How far it is, 0 to 1, as far as the render engine says."""
        found = re.findall(r"(\d+)\s*/\s*(\d+)", self._statistics)
        return min(int(found[-1][0]) / max(int(found[-1][1]), 1), 1.0) if found else 0.0

    def result(self) -> np.ndarray:
        """[H, W, 3] uint8 sRGB. Raises `ExportError` when there is none."""
        if self._state != "complete":
            raise ExportCancelled("Rendering the first frame was cancelled.")
        return _result(self._copy, self._placed)

    def close(self) -> None:
        """Leave nothing behind; a render that still runs is waited for by a timer."""
        for listed, handler in self._handlers:
            if handler in listed:
                listed.remove(handler)
        if self.ended:
            _discard(self._copy)
        else:
            bpy.app.timers.register(discard_leftovers, first_interval=0.5)

    # The methods below run in the render's thread.

    def _on_complete(self, *_) -> None:
        self._state = "complete"

    def _on_cancel(self, *_) -> None:
        self._state = "cancelled"

    def _on_statistics(self, statistics: object, *_) -> None:
        if isinstance(statistics, str):
            self._statistics = statistics


def discard_leftovers() -> float | None:
    """Remove what a render left that undo, loading or closing cut off; as a timer it comes again while a
    render runs."""
    if bpy.app.is_job_running("RENDER"):
        return 0.5
    for scene in [scene for scene in bpy.data.scenes if MARK in scene]:
        _discard(scene)
    for blocks in (bpy.data.cameras, bpy.data.node_groups):
        for block in [block for block in blocks if MARK in block]:
            blocks.remove(block)
    return None


def _stage(
    scene: bpy.types.Scene, view: SceneCamera | Viewport, placed: Fit, frame: float
) -> bpy.types.Scene:
    copy = scene.copy()
    copy.name, copy[MARK] = NAME, True
    copy.sequence_editor_clear()
    go_to(copy, frame)
    copy.timeline_markers.clear()  # the one that holds has chosen the camera
    # Blender animates what a scene shows when it renders an animation; for a still it takes the objects as
    # they are, and these are the user's, at the user's frame.
    copy.frame_start = copy.frame_end = max(int(frame), 0)
    copy.frame_step = 1
    copy.render.filepath = str(Path(tempfile.mkdtemp(prefix=FOLDER), "frame"))
    copy.render.use_overwrite, copy.render.use_placeholder = True, False
    render = copy.render
    frame_width, frame_height = view.frame_size(scene)
    # The scaled frame is rounded to whole pixels: make up for it, so that it still shows what the camera
    # sees.
    aspect = frame_width / frame_height / (placed.scaled_width / placed.scaled_height)
    render.resolution_x, render.resolution_y = placed.scaled_width, placed.scaled_height
    render.resolution_percentage = 100
    render.pixel_aspect_x, render.pixel_aspect_y = max(aspect, 1.0), max(1 / aspect, 1.0)
    for unwanted in ("use_border", "use_sequencer", "use_multiview", "use_stamp"):
        setattr(render, unwanted, False)
    output = render.image_settings
    if hasattr(output, "media_type"):
        output.media_type = "IMAGE"
    output.file_format, output.color_mode, output.color_depth = "PNG", "RGB", "8"
    _stage_compositor(scene, copy)
    if isinstance(view, Viewport):
        copy.camera = _stand_in(copy, view)
    elif view.camera is not None:
        copy.camera = view.camera
    return copy


def _stage_compositor(scene: bpy.types.Scene, copy: bpy.types.Scene) -> None:
    """The compositor works on the copy's layers, and writes no files."""
    if hasattr(copy, "compositing_node_group"):
        if copy.compositing_node_group is None:
            return
        copy.compositing_node_group = copy.compositing_node_group.copy()
        tree = copy.compositing_node_group
        tree[MARK] = True
    else:
        tree = copy.node_tree
    for node in tree.nodes if tree is not None else ():
        if node.type == "R_LAYERS" and node.scene == scene:
            node.scene = copy
        elif node.type == "OUTPUT_FILE":
            node.mute = True


def _stand_in(copy: bpy.types.Scene, view: Viewport) -> bpy.types.Object:
    data = bpy.data.cameras.new(NAME)
    data[MARK] = True
    camera = bpy.data.objects.new(data.name, data)
    copy.collection.objects.link(camera)
    camera.rotation_mode = "QUATERNION"  # angles near the poles lose digits
    camera.matrix_world = Matrix(view.stand_in(data))
    return camera


def call_render(how: str, copy: bpy.types.Scene, animation: bool, what: str = say("The first frame")) -> None:
    """Render a scene without a window for it. Raises `ExportError`, in whose sentence `what` can't be
    rendered."""
    preferences = bpy.context.preferences.view
    display = preferences.render_display_type
    preferences.render_display_type = "NONE"  # no window of its own
    try:
        with threads.still():  # a script may have overridden the context
            outcome = bpy.ops.render.render(how, animation=animation, scene=copy.name)
    except RuntimeError as error:
        reason = str(error).strip().removeprefix("Error: ").splitlines()[0].rstrip(".")
        raise ExportError(
            say(
                "{what} can't be rendered ({reason}); fix that or choose another source.",
                what=what,
                reason=reason,
            )
        ) from None
    finally:
        preferences.render_display_type = display
    if outcome == {"CANCELLED"}:
        raise ExportCancelled("Rendering the first frame was cancelled.")


def _result(copy: bpy.types.Scene, placed: Fit) -> np.ndarray:
    with tempfile.TemporaryDirectory(prefix="poseanything-") as folder:
        path = str(Path(folder, "frame.png"))
        try:
            bpy.data.images["Render Result"].save_render(path, scene=copy)
        except (KeyError, RuntimeError) as error:
            raise ExportError(
                say("The rendered first frame can't be read ({error}); generate again.", error=error)
            ) from None
        pixels = read_picture(path)
    return pixels[placed.top : placed.top + placed.height, placed.left : placed.left + placed.width]


def _discard(copy: bpy.types.Scene) -> None:
    folder = Path(copy.render.filepath).parent
    if folder.name.startswith(FOLDER):
        shutil.rmtree(folder, ignore_errors=True)
    camera = copy.camera
    tree = getattr(copy, "compositing_node_group", None)
    bpy.data.scenes.remove(copy)
    if camera is not None and camera.data is not None and MARK in camera.data:
        bpy.data.cameras.remove(camera.data)
    if tree is not None and MARK in tree:
        bpy.data.node_groups.remove(tree)
