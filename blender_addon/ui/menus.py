"""Where animators look for Generate: a right click on the rig, and a key beside F12."""

from __future__ import annotations

import bpy

_keys: list[tuple[bpy.types.KeyMap, bpy.types.KeyMapItem]] = []


def draw_generate(menu: bpy.types.Menu, context) -> None:
    """Generate, at the end of a context menu, where there is an armature to generate from."""
    rig = context.object
    if rig is None or not (rig.type == "ARMATURE" or rig.find_armature() is not None):
        return
    menu.layout.separator()
    menu.layout.operator("poseanything.generate", text="Generate with PoseAnything", icon="RENDER_ANIMATION")


_MENUS = ("VIEW3D_MT_object_context_menu", "VIEW3D_MT_pose_context_menu")


def register() -> None:
    for name in _MENUS:
        getattr(bpy.types, name).append(draw_generate)
    configuration = bpy.context.window_manager.keyconfigs.addon
    if configuration is not None:  # None in background mode
        keymap = configuration.keymaps.new(name="Screen")
        item = keymap.keymap_items.new("poseanything.generate", "F12", "PRESS", ctrl=True, alt=True)
        _keys.append((keymap, item))


def unregister() -> None:
    for keymap, item in _keys:
        keymap.keymap_items.remove(item)
    _keys.clear()
    for name in _MENUS:
        getattr(bpy.types, name).remove(draw_generate)
