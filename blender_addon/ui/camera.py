"""The camera's panel, and the rectangle that tells the model of its motion, drawn over the camera's view."""

from __future__ import annotations

import bpy
import gpu
from bpy.app.handlers import persistent
from gpu_extras.batch import batch_for_shader

from .. import engine_settings, session
from ..request.range import ClipRange, clip_range
from ..shared.camera import camera_path, rectangle_condition
from ..shared.engines import EngineDescription
from ..shared.pose import PoseSequence
from ..shared.schema import MessageError
from ..texts import say
from . import frame
from .frame import builtin_shader
from .text import field, paragraph, switch

COLOUR = (0.2, 0.8, 1.0, 1.0)

_kept: dict[tuple, PoseSequence | None] = {}
_handle: object | None = None


def draw_camera(layout, context) -> None:
    """What the camera does, how its motion reaches the model, and how strongly."""
    settings = context.scene.poseanything
    layout.operator("poseanything.frame_subject", icon="CAMERA_DATA")
    layout.operator_menu_enum("poseanything.add_camera_move", "move", text="Add Camera Move", icon="ANIM")
    layout.operator("poseanything.record_camera", icon="REC")
    engine = session.get().engine(settings.engine_name)
    if engine is not None and not engine.uses_camera:
        paragraph(
            layout, context, say("{engine} does not follow the camera's motion", engine=engine.label), "INFO"
        )
        return
    field(layout, context, settings, "camera_source")
    if settings.camera_source == "MOVE":
        column = layout.column(align=True)
        field(column, context, settings, "camera_move")
        field(column, context, settings, "camera_amount")
    if engine is not None:
        _draw_strengths(layout, context, engine)
    shown = context.scene.poseanything_shown
    switch(layout, context, shown, "rectangle", heading="Show", text="Rectangle")
    if shown.rectangle and settings.camera_source == "SCENE":
        layout.operator("poseanything.look_at_camera", icon="HIDE_OFF")


def _draw_strengths(layout, context, engine: EngineDescription) -> None:
    """The strengths of subject and camera, where the engine's guidance knows them."""
    group = engine_settings.group_of(context.scene, engine.name)
    knowing = [guider for guider in engine.guiders if guider.needs_camera]
    if group is None or not knowing:
        return
    guider = engine_settings.chosen_guider(context.scene, engine)
    if guider is None or not guider.needs_camera:
        best = max(knowing, key=lambda one: len(one.parameters))
        paragraph(layout, context, "The guidance that is chosen leaves the camera to the prompt.", "INFO")
        button = layout.operator("wm.context_set_enum", text="Follow the Camera")
        button.data_path = f"scene.{engine_settings.attribute(engine.name)}.{engine_settings.GUIDER}"
        button.value = best.name
        return
    column = layout.column(align=True)
    for parameter in guider.parameters:
        name = engine_settings.parameter_property(guider.name, parameter.name)
        field(column, context, group, name, slider=True)


def _rectangle(context, planned: ClipRange) -> PoseSequence | None:
    """The rectangle of every clip frame; None where nothing is known of the camera's motion."""
    settings, seen = context.scene.poseanything, session.get().camera_paths
    size = planned.num_frames, planned.width, planned.height
    path = seen.get((context.scene.name, planned))
    engine = session.get().engine(settings.engine_name)
    with_background = engine is not None and engine.camera_condition == "with_background"
    chosen = settings.camera_source, settings.camera_move, settings.camera_amount
    key = (*size, *chosen, id(path), with_background)
    if key not in _kept:
        _kept.clear()
        if settings.camera_source == "MOVE":
            move = camera_path({settings.camera_move.lower(): settings.camera_amount}, *size)
            path = move if path is None else move @ path
        try:
            _kept[key] = rectangle_condition(path, *size[1:], with_background) if path is not None else None
        except MessageError:
            _kept[key] = None
    return _kept[key]


def _draw() -> None:
    context = bpy.context
    if not context.scene.poseanything_shown.rectangle:
        return
    box = frame.box_of(context, frame.clip_fit(context))
    if box is None:
        return
    planned = clip_range(
        context, context.scene.poseanything, session.get().engine(context.scene.poseanything.engine_name)
    )
    rectangle = _rectangle(context, planned)
    index = planned.times.index_at(context.scene.frame_current_final)
    if rectangle is None or not 0 <= index < rectangle.num_frames:
        return
    left, bottom, right, top = box
    scale = (right - left) / planned.width, (bottom - top) / planned.height
    lines = []
    for line in rectangle.frame(index):
        flat = line.points[:, :2] * scale + (left, top)
        lines += [(*point, 0.0) for pair in zip(flat, flat[1:]) for point in pair]
    if lines:
        shader = builtin_shader("POLYLINE_UNIFORM_COLOR")
        shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
        shader.uniform_float("lineWidth", 2.0 * context.preferences.system.ui_scale)
        shader.uniform_float("color", COLOUR)
        batch_for_shader(shader, "LINES", {"pos": lines}).draw(shader)


@persistent
def _after_change(scene, depsgraph) -> None:
    """Keys that were changed move the camera otherwise."""
    if any(isinstance(update.id, bpy.types.Action) for update in depsgraph.updates):
        session.get().camera_paths.clear()


def register() -> None:
    global _handle
    bpy.app.handlers.depsgraph_update_post.append(_after_change)
    _handle = bpy.types.SpaceView3D.draw_handler_add(_draw, (), "WINDOW", "POST_PIXEL")


def unregister() -> None:
    global _handle
    bpy.types.SpaceView3D.draw_handler_remove(_handle, "WINDOW")
    _handle = None
    bpy.app.handlers.depsgraph_update_post.remove(_after_change)
    _kept.clear()
