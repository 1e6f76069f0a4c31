"""Set for many bones at once whether they are drawn."""

from __future__ import annotations

import bpy
from bpy.props import EnumProperty, StringProperty

from .. import session
from ..buttons import override_armature
from ..errors import UserError
from ..request.build import export_options
from ..request.export import ExportOptions, follow_camera, watch_range
from ..request.range import ClipRange, clip_range
from ..request.subjects import find_subjects
from ..request.view import find_view
from ..texts import say
from .exporting import keep_path
from .refusal import refuse
from .stepped import RangeOperator


def _require_own(rig: bpy.types.Object) -> None:
    """Raises `UserError` for an armature whose data is linked: what is set of it would be lost."""
    if rig.data.library:
        raise UserError(
            say(
                "The armature {armature} is linked from another file; override its data too to set anything "
                "of it.",
                armature=rig.name,
            ),
            *override_armature(rig.name),
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
        try:
            for rig in {bone.id_data for bone in context.selected_pose_bones}:
                _require_own(rig)
        except UserError as error:
            return refuse(self, error)
        for pose_bone in context.selected_pose_bones:
            pose_bone.bone.poseanything.limb = self.limb
        return {"FINISHED"}


class ArmatureOperator:
    """Base of operators on the armature that a button names. What the button was offered against is told no
    more, whether it has helped or the armature is gone."""

    armature: StringProperty(name="Armature", options={"SKIP_SAVE"})

    def execute(self, context):
        session.get().cured(type(self).bl_idname)
        rig = bpy.data.objects.get(self.armature)
        try:
            if rig is None or rig.type != "ARMATURE":
                raise UserError(
                    say("There is no armature {armature} any more; export again.", armature=self.armature)
                )
            self.change(context, rig)
        except UserError as error:
            return refuse(self, error)
        return {"FINISHED"}

    def change(self, context, rig: bpy.types.Object) -> None:
        """Raises `UserError`."""
        raise NotImplementedError


class POSEANYTHING_OT_forget_limbs(ArmatureOperator, bpy.types.Operator):
    bl_idname = "poseanything.forget_limbs"
    bl_label = "Choose Bones Anew"
    bl_description = "Set every bone and bone collection of this armature to Automatic"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    def change(self, context, rig):
        _require_own(rig)
        for marked in (*rig.data.bones, *rig.data.collections_all):
            marked.poseanything.limb = "AUTO"


class POSEANYTHING_OT_draw_digits(ArmatureOperator, bpy.types.Operator):
    bl_idname = "poseanything.draw_digits"
    bl_label = "Draw Fingers and Toes"
    bl_description = "Draw each finger and toe of this armature as one limb"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    def change(self, context, rig):
        _require_own(rig)
        rig.data.poseanything.digits = "MERGE"


class POSEANYTHING_OT_override_armature(ArmatureOperator, bpy.types.Operator):
    bl_idname = "poseanything.override_armature"
    bl_label = "Make Library Override"
    bl_description = (
        "Make a library override of this armature, of its data and of what belongs to it, so that its limbs "
        "can be set in this file"
    )
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    def change(self, context, rig):
        if rig.library:
            rig = _overridden(context, rig)
        if rig.data.library:
            rig.data.override_create(remap_local_usages=True)


def _overridden(context, linked: bpy.types.Object) -> bpy.types.Object:
    """A library override of a linked rig and of what belongs to it, as Blender makes one. Raises `UserError`
    where it makes none."""
    layer = context.view_layer
    instancers = (obj for obj in layer.objects if obj.instance_collection is not None)
    holder = next((obj for obj in instancers if linked in obj.instance_collection.all_objects[:]), linked)
    for obj in context.selected_objects:
        obj.select_set(False)
    holder.select_set(True)
    layer.objects.active = holder
    collections = context.scene.collection.children_recursive
    root = next((one for one in collections if one.library and linked.name in one.all_objects), None)
    try:
        bpy.ops.object.make_override_library(**{"collection": root.session_uid} if root else {})
    except RuntimeError as error:
        reason = str(error).strip().rpartition(": ")[2].rstrip(".")
        raise UserError(
            say(
                "Blender makes no library override of {armature}: {reason}.",
                armature=linked.name,
                reason=reason,
            )
        ) from error
    made = (obj for obj in layer.objects if obj.override_library is not None)
    rig = next(obj for obj in made if obj.override_library.reference == linked)
    layer.objects.active = rig
    rig.select_set(True)
    return rig


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
        POSEANYTHING_OT_draw_digits,
        POSEANYTHING_OT_override_armature,
        POSEANYTHING_OT_look_at_motion,
        POSEANYTHING_OT_look_at_camera,
    )
)
