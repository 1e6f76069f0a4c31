"""Takes of one shot against each other."""

from __future__ import annotations

import bpy

from ..sequencer import compare, strips, take_list
from ..takes.take import TakeError
from ..texts.translation import tell
from .refusal import refuse


class _ListOperator:
    """Base of operators for the take that is chosen in the list, as the sequencer shows it."""

    @classmethod
    def poll(cls, context):
        if _scene_of(take_list.active_item(context)) is None:
            cls.poll_message_set("No sequencer has a strip of this take; press Show")
            return False
        return True


def _scene_of(item) -> bpy.types.Scene | None:
    """The scene whose sequencer shows a listed take."""
    found = strips.find_strip(item.take_id) if item is not None else None
    return found[0] if found is not None else None


class POSEANYTHING_OT_solo_take(_ListOperator, bpy.types.Operator):
    bl_idname = "poseanything.solo_take"
    bl_label = "Solo"
    bl_description = "Show this take alone, without those beside it; once more shows them all"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        item = take_list.active_item(context)
        compare.solo(_scene_of(item), item.take_id)
        return {"FINISHED"}


class POSEANYTHING_OT_switch_take(_ListOperator, bpy.types.Operator):
    bl_idname = "poseanything.switch_take"
    bl_label = "A / B"
    bl_description = "Show the other one of the two takes that are compared"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        if not super().poll(context):
            return False
        kept, item = take_list.list_of(context), take_list.active_item(context)
        other = kept.items.get(kept.other)
        if other is None or other == item:
            cls.poll_message_set("Choose the take to compare with")
            return False
        if _scene_of(other) != _scene_of(item):
            cls.poll_message_set("The other take has no strip beside this one; choose it and press Show")
            return False
        return True

    def execute(self, context):
        kept = take_list.list_of(context)
        first, second = take_list.active_item(context), kept.items[kept.other]
        kept["wipe"] = compare.WHOLE
        try:
            chosen = compare.switch(_scene_of(first), first.take_id, second.take_id)
        except TakeError as error:
            return refuse(self, error)
        self.report({"INFO"}, tell("Shown: {take}", take=(first if chosen == first.take_id else second).name))
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (POSEANYTHING_OT_solo_take, POSEANYTHING_OT_switch_take)
)
