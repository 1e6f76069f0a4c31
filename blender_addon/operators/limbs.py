"""Set for many bones at once whether they are drawn."""

from __future__ import annotations

import bpy
from bpy.props import EnumProperty


class POSEANYTHING_OT_set_limb(bpy.types.Operator):
    bl_idname = "poseanything.set_limb"
    bl_label = "Set Limb"
    bl_description = "Draw or skip the selected bones, or decide from the rig's structure"
    bl_options = {"REGISTER", "UNDO"}

    limb: EnumProperty(
        name="Limb",
        description="Whether the selected bones are drawn",
        items=(
            ("AUTO", "Automatic", "Decide from the rig's structure"),
            ("DRAW", "Draw", "Always draw them"),
            ("SKIP", "Skip", "Never draw them"),
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
