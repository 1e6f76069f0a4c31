"""What changes the settings of an engine beside its plain properties: presets, and tables of strengths."""

from __future__ import annotations

import bpy
from bpy.props import EnumProperty, IntProperty, StringProperty

from .. import engine_settings, session
from ..shared.engines import EngineDescription
from ..texts.translation import tell

# Blender keeps only a pointer to the strings of a dynamic enumeration: hold on to them here.
_items: dict[str, list[tuple[str, str, str]]] = {}


def _chosen(context) -> EngineDescription | None:
    return session.get().engine(context.scene.poseanything.engine_name)


def _preset_items(self, context):
    engine = _chosen(context) if context is not None else None
    presets = engine.presets if engine is not None else ()
    _items["preset"] = [(preset.name, preset.label, preset.help) for preset in presets]
    return _items["preset"]


class POSEANYTHING_OT_use_preset(bpy.types.Operator):
    bl_idname = "poseanything.use_preset"
    bl_label = "Use Preset"
    bl_description = "Set the engine's steps, guidance and options to those of a preset"
    bl_options = {"REGISTER", "UNDO"}

    preset: EnumProperty(name="Preset", description="The values to set", items=_preset_items)

    @classmethod
    def poll(cls, context):
        engine = _chosen(context)
        if engine is None or engine_settings.group_of(context.scene, engine.name) is None:
            cls.poll_message_set("No engine is there to set")
            return False
        return True

    def execute(self, context):
        engine = _chosen(context)
        preset = engine.preset(self.preset)
        if preset is None:
            self.report({"ERROR"}, tell("{engine} has no such preset; choose another.", engine=engine.label))
            return {"CANCELLED"}
        engine_settings.use_preset(context.scene, engine, preset)
        return {"FINISHED"}


class _StrengthOperator:
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    engine: StringProperty(name="Engine", options={"HIDDEN"})
    option: StringProperty(name="Option", options={"HIDDEN"})


def _table(context, operator):
    """The strengths of the operator's option in the scene, None where its engine has no such option."""
    group = engine_settings.group_of(context.scene, operator.engine)
    return getattr(group, engine_settings.option_property(operator.option), None)


def _strength_items(self, context):  # self is the operator's properties alone
    engine = session.get().engine(self.engine)
    option = engine.option(self.option) if engine is not None else None
    taken = [item.name for item in _table(context, self) or ()] if context is not None else []
    choices = option.choices if option is not None else ()
    _items["strength"] = [
        (choice.name, choice.label, choice.help) for choice in choices if choice.name not in taken
    ]
    return _items["strength"]


class POSEANYTHING_OT_add_strength(_StrengthOperator, bpy.types.Operator):
    bl_idname = "poseanything.add_strength"
    bl_label = "Add"
    bl_description = "Use one more, with a strength of its own"

    choice: EnumProperty(name="Name", description="What to add", items=_strength_items)

    def execute(self, context):
        table = _table(context, self)
        if table is None or not self.choice:
            self.report({"ERROR"}, tell("There is nothing more to add."))
            return {"CANCELLED"}
        table.add().name = self.choice
        return {"FINISHED"}


class POSEANYTHING_OT_remove_strength(_StrengthOperator, bpy.types.Operator):
    bl_idname = "poseanything.remove_strength"
    bl_label = "Remove"
    bl_description = "No longer use it"

    index: IntProperty(name="Index", options={"HIDDEN"})

    def execute(self, context):
        table = _table(context, self)
        if table is None or not 0 <= self.index < len(table):
            return {"CANCELLED"}
        table.remove(self.index)
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (POSEANYTHING_OT_use_preset, POSEANYTHING_OT_add_strength, POSEANYTHING_OT_remove_strength)
)
