"""Say of many bones at once whether they are drawn."""

from __future__ import annotations

import bpy
from bpy.props import EnumProperty


class POSEANYTHING_OT_set_limb(bpy.types.Operator):
    bl_idname = "poseanything.set_limb"
    bl_label = "Set Limb"
    bl_description = "Draw or skip the selected bones, or let the rig's make-up decide"
    bl_options = {"REGISTER", "UNDO"}

    limb: EnumProperty(
        name="Limb",
        description="What becomes of the selected bones",
        items=(
            ("AUTO", "Automatic", "Let the rig's make-up decide"),
            ("DRAW", "Draw", "Always a limb of the drawing"),
            ("SKIP", "Skip", "Never a limb of the drawing"),
        ),
    )

    @classmethod
    def poll(cls, context):
        if not context.selected_pose_bones:
            cls.poll_message_set("Select bones in Pose Mode")
            return False
        return True

    def execute(self, context):
        for pose_bone in context.selected_pose_bones:
            pose_bone.bone.poseanything.limb = self.limb
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory((POSEANYTHING_OT_set_limb,))
