"""The live view's switch in the 3D View's header and sidebar, and its picture over the camera view."""

from __future__ import annotations

import bpy
import gpu
from gpu_extras.batch import batch_for_shader

from ..live import view
from ..texts.translation import tell
from . import frame
from .progress import draw_start
from .text import paragraph

BONE_WIDTH = 2.0
WIDTH = 14
"""Of the popover, in Blender's units."""

_handle: object | None = None


def draw_switch(layout, context, text: str) -> None:
    """Live on and off, and what belongs to it."""
    live = view.of(context)
    row = layout.row(align=True)
    row.alert = bool(live.on and live.sentence)
    row.operator("poseanything.live", text=text, icon="REC" if live.on else "PLAY", depress=live.on)
    if live.stale:
        row.operator("poseanything.refresh_live", text="", icon="FILE_REFRESH")
    row.popover("POSEANYTHING_PT_live", text="")


def _draw_in_header(self, context) -> None:
    draw_switch(self.layout, context, "Live")


class POSEANYTHING_PT_live(bpy.types.Panel):
    bl_label = "Live"
    bl_space_type = "VIEW_3D"
    bl_region_type = "HEADER"
    bl_ui_units_x = WIDTH
    page = "live"

    def draw(self, context):
        layout, settings, live = self.layout, context.scene.poseanything_shown, view.of(context)
        layout.operator("poseanything.help", icon="QUESTION").page = self.page
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(settings, "live_opacity", slider=True)
        column = layout.column(heading="Show")
        column.prop(context.scene.poseanything, "show_limbs", text="Limbs")
        for name in ("parts", "crop", "first_frame", "onion"):
            column.prop(settings, name)
        layout.prop(settings, "skeleton")
        if settings.first_frame or settings.onion:
            layout.prop(settings, "opacity", slider=True)
        if settings.onion:
            layout.prop(settings, "onion_distance")
        if context.scene.poseanything.first_frame_source == "PICTURE" and settings.first_frame:
            layout.operator("poseanything.reset_alignment")
        if live.on:
            layout.operator("poseanything.refresh_live", icon="FILE_REFRESH")
            if live.latency:
                layout.label(
                    text=tell("{time:.0f} ms from pose to picture", time=live.latency * 1000),
                    icon="TIME",
                )
        if live.stale:
            paragraph(
                layout, context, "What the first frame shows has changed; refresh it.", "INFO", units=WIDTH
            )
        for sentence in filter(None, (live.sentence, live.note)):
            paragraph(layout, context, sentence, "INFO", units=WIDTH)
        if live.sentence:
            draw_start(layout, context)


def _draw_picture() -> None:
    """Beneath gizmos and above all that Blender draws of the scene."""
    context, live = bpy.context, view.of(bpy.context)
    if not live.on or not live.opened.follower.is_of(context.scene):
        return
    live.fetch(drawing=True)
    box = frame.box_of(context, live.opened.follower.fit)
    texture = live.picture.texture() if box is not None else None
    if texture is None:
        return
    with frame.region_pixels(context):
        frame.draw_picture(texture, box, context.scene.poseanything_shown.live_opacity)
    if context.mode == "POSE" and context.space_data.overlay.show_overlays:
        _draw_chosen_bones(context)


def _draw_chosen_bones(context) -> None:
    """The bones that are posed, which the picture would hide."""
    colours = context.preferences.themes[0].view_3d
    shader = frame.builtin_shader("POLYLINE_UNIFORM_COLOR")
    shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
    shader.uniform_float("lineWidth", BONE_WIDTH * context.preferences.system.ui_scale)
    gpu.state.depth_test_set("NONE")
    active = context.active_pose_bone
    for colour, bones in (
        (colours.bone_pose, [bone for bone in context.selected_pose_bones or () if bone != active]),
        (colours.bone_pose_active, [active] if active is not None else []),
    ):
        ends = [bone.id_data.matrix_world @ end for bone in bones for end in (bone.head, bone.tail)]
        if ends:
            shader.uniform_float("color", (*colour, 1.0))
            batch_for_shader(shader, "LINES", {"pos": [tuple(end) for end in ends]}).draw(shader)


_register, _unregister = bpy.utils.register_classes_factory((POSEANYTHING_PT_live,))


def register() -> None:
    global _handle
    _register()
    bpy.types.VIEW3D_HT_header.append(_draw_in_header)
    _handle = bpy.types.SpaceView3D.draw_handler_add(_draw_picture, (), "WINDOW", "POST_VIEW")


def unregister() -> None:
    global _handle
    bpy.types.SpaceView3D.draw_handler_remove(_handle, "WINDOW")
    _handle = None
    bpy.types.VIEW3D_HT_header.remove(_draw_in_header)
    _unregister()
