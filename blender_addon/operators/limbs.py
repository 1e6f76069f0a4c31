"""Set for many bones at once whether they are drawn."""

from __future__ import annotations

from collections.abc import Iterable

import bpy
from bpy.props import EnumProperty, StringProperty

from .. import session
from ..request.build import export_options
from ..request.export import ExportOptions, follow_camera, watch_range
from ..request.range import ClipRange, clip_range
from ..request.subjects import find_subjects
from ..request.view import find_view
from ..texts import say
from ..texts.translation import shown, tell
from .exporting import keep_path
from .stepped import RangeOperator


def linked_sentence(datas: Iterable[bpy.types.Armature]) -> str:
    """Why what is set of linked armatures would be lost."""
    names = ", ".join(sorted(data.name for data in datas))
    return say(
        "The armature {names} is linked from another file; override its data too to set anything of it.",
        names=names,
    )


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
        if not getattr(context, "selected_pose_bones", None):  # not every window has it
            cls.poll_message_set("Select bones in Pose Mode")
            return False
        return True

    def execute(self, context):
        linked = {bone.id_data.data for bone in context.selected_pose_bones if bone.id_data.data.library}
        if linked:
            self.report({"ERROR"}, shown(linked_sentence(linked)))
            return {"CANCELLED"}
        for pose_bone in context.selected_pose_bones:
            pose_bone.bone.poseanything.limb = self.limb
        return {"FINISHED"}


class ArmatureOperator:
    """An operator on the armature that a button names."""

    armature: StringProperty(name="Armature", options={"SKIP_SAVE"})

    def editable(self) -> bpy.types.Armature | None:
        """The armature's data; None, and the user is told why, where nothing can be set of it."""
        rig = bpy.data.objects.get(self.armature)
        if rig is None or rig.type != "ARMATURE":
            self.report(
                {"ERROR"},
                tell("There is no armature {armature} any more; export again.", armature=self.armature),
            )
        elif rig.data.library:
            self.report({"ERROR"}, shown(linked_sentence([rig.data])))
        else:
            return rig.data
        return None


class POSEANYTHING_OT_forget_limbs(ArmatureOperator, bpy.types.Operator):
    bl_idname = "poseanything.forget_limbs"
    bl_label = "Choose Bones Anew"
    bl_description = "Set every bone and bone collection of this armature to Automatic"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    def execute(self, context):
        data = self.editable()
        if data is None:
            return {"CANCELLED"}
        for marked in (*data.bones, *data.collections_all):
            marked.poseanything.limb = "AUTO"
        return {"FINISHED"}


def _planned_export(context) -> tuple[ClipRange, ExportOptions]:
    """The clip that the settings ask for now, and how it would be exported. Raises `ExportError`."""
    settings = context.scene.poseanything
    planned = clip_range(context, settings, session.get().engine(settings.engine_name))
    view, subjects = find_view(context, settings), find_subjects(context, settings)
    return planned, export_options(context, settings, planned, subjects, view, "")


class POSEANYTHING_OT_look_at_motion(RangeOperator, bpy.types.Operator):
    bl_idname = "poseanything.look_at_motion"
    bl_label = "Look at the Motion"
    bl_description = (
        "Look at a few frames of the range to see how much of the picture each bone moves; every export "
        "does so too"
    )
    bl_options = {"REGISTER"}

    def steps(self, context):
        _, options = _planned_export(context)
        return (yield from watch_range(context, options))

    def finish(self, context, result):
        session.get().keep_motions(result)
        return {"FINISHED"}


class POSEANYTHING_OT_look_at_camera(RangeOperator, bpy.types.Operator):
    bl_idname = "poseanything.look_at_camera"
    bl_label = "Look at the Camera"
    bl_description = (
        "Go through the range to see how the background moves, for the rectangle that is drawn over the "
        "view; every export does so too"
    )
    bl_options = {"REGISTER"}

    def steps(self, context):
        self._planned, options = _planned_export(context)
        return (yield from follow_camera(context, options))

    def finish(self, context, result):
        keep_path(context.scene, self._planned, result)
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (
        POSEANYTHING_OT_set_limb,
        POSEANYTHING_OT_forget_limbs,
        POSEANYTHING_OT_look_at_motion,
        POSEANYTHING_OT_look_at_camera,
    )
)
