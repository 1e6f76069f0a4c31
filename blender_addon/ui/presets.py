"""Presets of a shot's settings and of control videos, kept with the user's other presets."""

from __future__ import annotations

import bpy
from bl_operators.presets import AddPresetBase
from bl_ui.utils import PresetPanel

from ..control.kinds import KINDS, PRESETS

KEPT = (
    "pacing",
    "frame_step",
    "clip_rate",
    "speed",
    "long_side",
    "view",
    "first_frame_source",
    "pose_density",
    "pose_interval",
    "pose_look",
    "camera_source",
    "camera_move",
    "camera_amount",
    "prompt",
    "negative_prompt",
    "engine_name",
    "new_seed",
    "batch",
    "strips_go_to",
    "make_movie",
)
"""The settings that are of use in another scene too."""


class _Presets(PresetPanel):
    preset_operator = "script.execute_preset"

    def path_menu(self, searchpaths, operator, **options):
        """Blender's, without the error that it shows while the user has no preset: an iterator is never
        empty to it."""
        PresetPanel.path_menu(self, iter(searchpaths), operator, **options)


class POSEANYTHING_PT_presets(_Presets, bpy.types.Panel):
    bl_label = "Shot Presets"
    preset_subdir = "poseanything"
    preset_add_operator = "poseanything.add_preset"


class POSEANYTHING_OT_add_preset(AddPresetBase, bpy.types.Operator):
    bl_idname = "poseanything.add_preset"
    bl_label = "Add Shot Preset"
    bl_description = "Keep this scene's settings as a preset, or remove one"

    preset_menu = "POSEANYTHING_PT_presets"
    preset_subdir = POSEANYTHING_PT_presets.preset_subdir
    preset_defines = ("settings = bpy.context.scene.poseanything",)
    preset_values = tuple(f"settings.{name}" for name in KEPT)


class POSEANYTHING_PT_control_presets(_Presets, bpy.types.Panel):
    bl_idname = "POSEANYTHING_PT_control_presets"
    bl_label = "Control Video Presets"
    preset_subdir = "poseanything_control"
    preset_add_operator = "poseanything.add_control_preset"

    def draw(self, context):
        """Those that come along above the user's own."""
        column = self.layout.column(align=True)
        for name, (label, _) in PRESETS.items():
            column.operator("poseanything.use_control_preset", text=label).preset = name
        super().draw(context)


class POSEANYTHING_OT_add_control_preset(AddPresetBase, bpy.types.Operator):
    bl_idname = "poseanything.add_control_preset"
    bl_label = "Add Control Video Preset"
    bl_description = "Keep the chosen control videos as a preset, or remove one"

    preset_menu = "POSEANYTHING_PT_control_presets"
    preset_subdir = POSEANYTHING_PT_control_presets.preset_subdir
    preset_defines = ("control = bpy.context.scene.poseanything_control",)
    preset_values = tuple(f"control.{name}" for name in (*KINDS, "file_format"))


register, unregister = bpy.utils.register_classes_factory(
    (
        POSEANYTHING_PT_presets,
        POSEANYTHING_OT_add_preset,
        POSEANYTHING_PT_control_presets,
        POSEANYTHING_OT_add_control_preset,
    )
)
