"""What the buttons beside a finding do."""

from __future__ import annotations

import bpy
from bpy.props import IntProperty

from .. import session


class POSEANYTHING_OT_use_range(bpy.types.Operator):
    bl_idname = "poseanything.use_range"
    bl_label = "Use Range"
    bl_description = "Generate these frames only, up to the camera's cut"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    start: IntProperty(name="Start", options={"SKIP_SAVE"})
    end: IntProperty(name="End", options={"SKIP_SAVE"})

    def execute(self, context):
        settings = context.scene.poseanything
        settings.use_custom_range, settings.frame_start, settings.frame_end = True, self.start, self.end
        session.get().cured(type(self).bl_idname)
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory((POSEANYTHING_OT_use_range,))
