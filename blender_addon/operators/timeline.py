"""Generate from a time line, and put takes anywhere on it."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, IntProperty

from ..sequencer import strips
from ..takes.take import TakeError
from .generate import GeneratingOperator, generate
from .refusal import refuse
from .stepped import RangeOperator
from .takes import TakeOperator, chosen


class POSEANYTHING_OT_generate_range(RangeOperator, GeneratingOperator, bpy.types.Operator):
    bl_idname = "poseanything.generate_range"
    bl_label = "Generate Range"
    bl_description = "Generate these scene frames with the scene's settings, whose own range stays as it is"
    bl_options = {"REGISTER"}

    frame_start: IntProperty(name="Start", description="First scene frame", options={"SKIP_SAVE"})
    frame_end: IntProperty(name="End", description="Last scene frame", options={"SKIP_SAVE"})
    at_playhead: BoolProperty(
        name="At the Playhead",
        description="Let the strip begin at the sequencer's playhead instead of where the frames are in time",
        options={"SKIP_SAVE"},
    )

    def steps(self, context):
        start = strips.sequencer_scene(context).frame_current if self.at_playhead else None
        return generate(context, self.interactive, (self.frame_start, self.frame_end), start)


class POSEANYTHING_OT_place_take(TakeOperator, bpy.types.Operator):
    bl_idname = "poseanything.place_take"
    bl_label = "Place at the Playhead"
    bl_description = "Add the take to the sequencer once more, from the playhead on and above what lies there"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        try:
            take_id, take = chosen(context, self.take_id)
            edit = strips.sequencer_scene(context)
            strips.add_strip(edit, take_id, take, max(take.frames_on_disk(), 1), edit.frame_current)
        except (TakeError, RuntimeError) as error:
            return refuse(self, error)
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (POSEANYTHING_OT_generate_range, POSEANYTHING_OT_place_take)
)
