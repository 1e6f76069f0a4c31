"""Show generated frames in the colours they were made in."""

from __future__ import annotations

import bpy

from ..sequencer.strips import sequencer_scene
from ..texts.translation import tell


def changes_colours(scene: bpy.types.Scene) -> bool:
    """Whether the scene's view transform makes finished pictures look other than they are."""
    view = scene.view_settings
    return (
        view.view_transform not in ("Standard", "Raw")
        or view.look != "None"
        or view.exposure != 0
        or view.gamma != 1
    )


class POSEANYTHING_OT_use_standard_view(bpy.types.Operator):
    bl_idname = "poseanything.use_standard_view"
    bl_label = "Use Standard View"
    bl_description = (
        "Set the scene's view transform to Standard, so that generated frames keep their colors in the "
        "sequencer. "
        "Renders of the scene will look different too"
    )
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        view = sequencer_scene(context).view_settings
        try:
            view.view_transform = "Standard"
        except TypeError:
            self.report(
                {"ERROR"},
                tell("This color configuration has no view transform named Standard; choose one by hand."),
            )
            return {"CANCELLED"}
        view.look, view.exposure, view.gamma = "None", 0.0, 1.0
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory((POSEANYTHING_OT_use_standard_view,))
