"""A shot to try everything with."""

from __future__ import annotations

import bpy
from bpy.props import IntProperty

from .. import session
from ..examples import scenes
from ..request.export import ExportStep
from .stepped import SteppedOperator


class POSEANYTHING_OT_example_shot(SteppedOperator, bpy.types.Operator):
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
        elif session.get().exporting is not None:
            cls.poll_message_set("Wait for what is being made")
        else:
            return True
        return False

    def steps(self, context):
        scene = bpy.data.scenes.new("Example Shot")
        context.window.scene = scene
        for fraction, text in scenes.example_steps(context, self.seed):
            yield ExportStep(
                fraction, text, waiting=True
            )  # so that the window says so before it stands still
        settings = scene.poseanything
        settings.prompt, settings.take_name = scenes.PROMPT, "fox"

    def finish(self, context, result):
        for area in context.screen.areas if context.screen is not None else ():
            if area.type == "VIEW_3D":
                area.spaces.active.region_3d.view_perspective = "CAMERA"
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory((POSEANYTHING_OT_example_shot,))
