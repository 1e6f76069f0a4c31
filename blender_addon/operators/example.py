"""A shot to try everything with."""

from __future__ import annotations

import bpy
from bpy.props import IntProperty

from ..examples import scenes


class POSEANYTHING_OT_example_shot(bpy.types.Operator):
    bl_idname = "poseanything.example_shot"
    bl_label = "Example Shot"
    bl_description = (
        "Make a scene of its own with a rigged, animated fox, light and a camera, ready to be generated. "
        "Nothing of yours is changed"
    )
    bl_options = {"REGISTER", "UNDO"}

    seed: IntProperty(
        name="Seed", description="Which of the variants is made; 0 is the plain fox", min=0, max=2**31 - 1
    )

    @classmethod
    def poll(cls, context):
        if context.window is None:
            cls.poll_message_set("Needs a window to show the scene in")
            return False
        return True

    def execute(self, context):
        scene = bpy.data.scenes.new("Example Shot")
        context.window.scene = scene
        scenes.example_shot(context, self.seed)
        settings = scene.poseanything
        settings.prompt, settings.take_name = scenes.PROMPT, "fox"
        for area in context.screen.areas if context.screen is not None else ():
            if area.type == "VIEW_3D":
                area.spaces.active.region_3d.view_perspective = "CAMERA"
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory((POSEANYTHING_OT_example_shot,))
