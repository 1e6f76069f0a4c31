"""Where animators look for Generate: a right click on the rig or a time line, and a key beside F12."""

from __future__ import annotations

import bpy

from ..request.spans import scene_span, spans
from ..request.subjects import find_subjects
from ..sequencer import take_list
from ..texts.translation import tell

_keys: list[tuple[bpy.types.KeyMap, bpy.types.KeyMapItem]] = []


def draw_generate(menu: bpy.types.Menu, context) -> None:
    """Generate, at the end of a context menu, where there is an armature to generate from."""
    rig = context.object
    if rig is None or not (rig.type == "ARMATURE" or rig.find_armature() is not None):
        return
    menu.layout.separator()
    column = menu.layout.column()
    column.operator_context = "INVOKE_DEFAULT"  # above stands what runs to its end before Blender goes on
    column.operator("poseanything.generate", text="Generate with PoseAnything", icon="RENDER_ANIMATION")


class POSEANYTHING_MT_generate_range(bpy.types.Menu):
    bl_idname = "POSEANYTHING_MT_generate_range"
    bl_label = "Generate with PoseAnything"

    def draw(self, context):
        layout = self.layout
        layout.operator_context = "INVOKE_DEFAULT"
        for span in spans(context):
            text = tell("{span} ({first} to {last})", span=span.label, first=span.first, last=span.last)
            button = layout.operator("poseanything.generate_range", text=text, icon=span.icon)
            button.frame_start, button.frame_end = span.first, span.last
        if context.area is not None and context.area.type == "SEQUENCE_EDITOR":
            layout.separator()
            button = layout.operator(
                "poseanything.generate_range", text="The Scene, at the Playhead", icon="TIME"
            )
            button.frame_start, button.frame_end = scene_span(context)
            button.at_playhead = True


def draw_generate_range(menu: bpy.types.Menu, context) -> None:
    """What may be generated from a time line, where there is a rig to generate from."""
    if find_subjects(context, context.scene.poseanything):
        menu.layout.separator()
        menu.layout.menu(POSEANYTHING_MT_generate_range.bl_idname, icon="RENDER_ANIMATION")
        kind = context.area.type if context.area is not None else ""
        if kind in ("DOPESHEET_EDITOR", "SEQUENCE_EDITOR"):
            menu.layout.operator("poseanything.toggle_key_pose", icon="KEYFRAME_HLT")
        if kind == "DOPESHEET_EDITOR":
            menu.layout.operator("poseanything.key_poses_from_selection", icon="KEYFRAME")
        item = take_list.active_item(context)
        if kind == "SEQUENCE_EDITOR" and item is not None:
            button = menu.layout.operator("poseanything.place_take", icon="IMPORT")
            button.take_id = item.take_id


_MENUS = ("VIEW3D_MT_object_context_menu", "VIEW3D_MT_pose_context_menu")
_TIME_MENUS = (
    "DOPESHEET_MT_context_menu",
    "DOPESHEET_MT_marker",
    "GRAPH_MT_context_menu",
    "NLA_MT_context_menu",
    "SEQUENCER_MT_context_menu",
    "SEQUENCER_MT_marker",
    "TIME_MT_marker",
)
"""Blender 5.0 has no Timeline of its own any more: it is a Dope Sheet."""


def register() -> None:
    bpy.utils.register_class(POSEANYTHING_MT_generate_range)
    for name in _MENUS:
        getattr(bpy.types, name).append(draw_generate)
    for name in _TIME_MENUS:
        if hasattr(bpy.types, name):
            getattr(bpy.types, name).append(draw_generate_range)
    configuration = bpy.context.window_manager.keyconfigs.addon
    if configuration is not None:  # None in background mode
        keymap = configuration.keymaps.new(name="Screen")
        item = keymap.keymap_items.new("poseanything.generate", "F12", "PRESS", ctrl=True, alt=True)
        _keys.append((keymap, item))


def unregister() -> None:
    for keymap, item in _keys:
        keymap.keymap_items.remove(item)
    _keys.clear()
    for name in _TIME_MENUS:
        if hasattr(bpy.types, name):
            getattr(bpy.types, name).remove(draw_generate_range)
    for name in _MENUS:
        getattr(bpy.types, name).remove(draw_generate)
    bpy.utils.unregister_class(POSEANYTHING_MT_generate_range)
