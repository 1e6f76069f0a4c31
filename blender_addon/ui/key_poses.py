"""Which frames carry a pose: counted in the panel, drawn on the time lines."""

from __future__ import annotations

import bpy
from bpy.app.handlers import persistent
from gpu_extras.batch import batch_for_shader

from .. import engine_settings, handlers, session
from ..errors import ExportError
from ..request.range import ClipRange, clip_range, pose_frames
from ..request.subjects import find_subjects
from ..sequencer import strips
from ..shared.engines import EngineDescription
from ..shared.strength import suggest_guidance_scale
from ..texts import say
from ..texts.translation import tell
from ..times import frame_rate, to_animation
from .frame import builtin_shader
from .text import field, paragraph

COLOUR = (1.0, 0.55, 0.1, 1.0)
SIZE = 5.0
"""Half the width of a mark in pixels, at a resolution scale of 1."""
STRENGTH, BY_DENSITY = "guidance_scale", "scale_by_density"
"""A guider that has both follows the share of frames that have a pose (paper section G)."""

# Reading the keys of a rig takes a while: kept until something it depends on changes.
_kept: dict[tuple, tuple[int, ...]] = {}
_SPACES = (bpy.types.SpaceDopeSheetEditor, bpy.types.SpaceSequenceEditor)
"""The Timeline is a Dope Sheet."""
_handles: list[object] = []


def posed_frames(context, planned: ClipRange) -> tuple[int, ...]:
    """The clip frames that carry a pose."""
    settings, scene = context.scene.poseanything, context.scene
    key = (
        planned,
        settings.pose_density,
        settings.pose_interval,
        settings.key_poses,
        tuple(marker.frame for marker in scene.timeline_markers),
        tuple(obj.session_uid for obj in find_subjects(context, settings)),
    )
    if key not in _kept:
        _kept.clear()
        chosen = pose_frames(context, settings, planned)
        _kept[key] = tuple(range(planned.num_frames)) if chosen is None else chosen
    return _kept[key]


def draw_key_poses(layout, context, engine: EngineDescription | None) -> None:
    """How poses are chosen, how many they are, and how strong they are."""
    settings = context.scene.poseanything
    field(layout, context, settings, "pose_density")
    if settings.pose_density == "NTH":
        field(layout, context, settings, "pose_interval")
    if settings.pose_density == "HAND":
        column = layout.column(align=True)
        column.operator("poseanything.toggle_key_pose", icon="KEYFRAME_HLT")
        row = column.row(align=True)
        row.operator("poseanything.key_poses_from_selection", text="From Keys", icon="KEYFRAME")
        row.operator("poseanything.clear_key_poses", text="", icon="X")
    try:
        planned = clip_range(context, settings, engine)
    except ExportError:
        return  # the main panel says what is wrong
    if settings.pose_density == "ALL":
        return
    count = len(posed_frames(context, planned))
    share = count / planned.num_frames
    layout.label(
        text=tell(
            "{count} of {total} frames, {share:.0%}", count=count, total=planned.num_frames, share=share
        ),
        icon="KEYFRAME_HLT",
    )
    if engine is not None:
        _draw_strength(layout, context, engine, share)


def _draw_strength(layout, context, engine: EngineDescription, share: float) -> None:
    """The strength of the poses where the engine's guidance has one: as their density says, or as the user
    does."""
    guider = engine_settings.chosen_guider(context.scene, engine)
    group = engine_settings.group_of(context.scene, engine.name)
    if group is None or guider is None:
        return
    names = {parameter.name for parameter in guider.parameters}
    if not {STRENGTH, BY_DENSITY} <= names:
        if any({STRENGTH, BY_DENSITY} <= {p.name for p in other.parameters} for other in engine.guiders):
            paragraph(
                layout,
                context,
                say("Poses have no strength of their own by this guidance"),
                "BLANK1",
            )
        return
    by_density = engine_settings.parameter_property(guider.name, BY_DENSITY)
    row = layout.row()
    row.use_property_split = False  # all of the width for its text
    row.prop(group, by_density, text="Strength by Their Number")
    if getattr(group, by_density):
        layout.label(
            text=tell("Strength {strength:.1f}", strength=suggest_guidance_scale(share)),
            icon="FORCE_FORCE",
        )
    else:
        strength = engine_settings.parameter_property(guider.name, STRENGTH)
        field(layout, context, group, strength, text="Pose Strength")
        layout.label(
            text=tell("Advised: {strength:.1f}", strength=suggest_guidance_scale(share)),
            icon="BLANK1",
        )


def _draw() -> None:
    """A mark on the time line for every scene frame that carries a pose, where not all do."""
    context = bpy.context
    settings, region = context.scene.poseanything, context.region
    if settings.pose_density == "ALL" or not find_subjects(context, settings):
        return
    try:
        planned = clip_range(context, settings, session.get().engine(settings.engine_name))
    except ExportError:
        return
    scale = context.preferences.system.ui_scale
    corners, height = [], 10 * scale
    for index in posed_frames(context, planned):
        frame = _place(context, planned, index)
        x, _ = region.view2d.view_to_region(frame, 0, clip=False)
        if -SIZE * scale <= x <= region.width + SIZE * scale:
            half = SIZE * scale
            corners += [(x - half, height), (x, height + 2 * half), (x + half, height)]
    if corners:
        shader = builtin_shader("UNIFORM_COLOR")
        shader.uniform_float("color", COLOUR)
        batch_for_shader(shader, "TRIS", {"pos": corners}).draw(shader)


def _place(context, planned: ClipRange, index: int) -> float:
    """Where on the time line that is drawn a clip frame lies: in a sequencer where the shot is shown, else
    where the animation is that it shows."""
    if context.area.type != "SEQUENCE_EDITOR":
        return to_animation(context.scene, planned.times.at(index))
    edit = strips.sequencer_scene(context)
    return planned.times.moment_in(frame_rate(edit) / frame_rate(context.scene), index)


@persistent
def _after_change(scene, depsgraph) -> None:
    if _kept and any(not isinstance(update.id, bpy.types.Mesh) for update in depsgraph.updates):
        _kept.clear()


@persistent
def _forget(*_) -> None:
    _kept.clear()


_HANDLERS = {
    "depsgraph_update_post": _after_change,
    "undo_post": _forget,
    "redo_post": _forget,
    "load_pre": _forget,
}


def register() -> None:
    handlers.add(_HANDLERS)
    _handles.extend(space.draw_handler_add(_draw, (), "WINDOW", "POST_PIXEL") for space in _SPACES)


def unregister() -> None:
    for space, handle in zip(_SPACES, _handles, strict=True):
        space.draw_handler_remove(handle, "WINDOW")
    _handles.clear()
    handlers.remove(_HANDLERS)
    _kept.clear()
