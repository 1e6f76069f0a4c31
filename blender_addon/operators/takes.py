"""What can be done with a take: make it again, take its settings, open its folder, put it back into the
sequencer."""

from __future__ import annotations

import uuid
from pathlib import Path

import bpy
from bpy.props import StringProperty

from .. import session
from .. import settings as scene_settings
from ..request.record import restore_engine
from ..rig import properties
from ..sequencer import strips
from ..sequencer.edit_scene import target_scene
from ..takes.take import Take, TakeError, read_take


def chosen_take(context, take_id: str = "") -> Take:
    """A take by its id, else of the sequencer's active strip, else the newest. Raises `TakeError`."""
    jobs = session.get().bridge.jobs
    if take_id:
        if take_id in jobs:
            return jobs[take_id].take
        if (found := strips.find_strip(take_id)) is not None:
            return strips.take_of(found[1])
    editor = strips.sequencer_scene(context).sequence_editor
    active = editor.active_strip if editor is not None else None
    if active is not None and strips.TAKE_ID in active:
        return strips.take_of(active)
    if jobs:
        return list(jobs.values())[-1].take
    raise TakeError("Select a generated strip in the sequencer")


class _TakeOperator:
    take_id: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context):
        try:
            chosen_take(context)
        except TakeError as error:
            cls.poll_message_set(str(error))
            return False
        return True


class POSEANYTHING_OT_use_take_settings(_TakeOperator, bpy.types.Operator):
    bl_idname = "poseanything.use_take_settings"
    bl_label = "Use Its Settings"
    bl_description = (
        "Set this scene's prompt, seed, range and all other settings to those the take was made with"
    )
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        try:
            take = chosen_take(context, self.take_id)
            notices = adopt(context, take)
        except TakeError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        for notice in notices:
            self.report({"WARNING"}, notice)
        self.report({"INFO"}, f"Settings of {take.name}")
        return {"FINISHED"}


class POSEANYTHING_OT_make_again(_TakeOperator, bpy.types.Operator):
    bl_idname = "poseanything.make_again"
    bl_label = "Make Again"
    bl_description = (
        "Generate the take once more with its own settings, seed and first frame, as a new take. The "
        "scene's settings become the take's"
    )
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        return self._again(context, "EXEC_DEFAULT")

    def invoke(self, context, event):
        return self._again(context, "INVOKE_DEFAULT")

    def _again(self, context, how):
        try:
            take = chosen_take(context, self.take_id)
            adopt(context, take)
        except TakeError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if not bpy.ops.poseanything.generate.poll():
            self.report(
                {"ERROR"},
                "The settings are the take's again, but it can't be generated now; see the Generate button.",
            )
            return {"FINISHED"}
        try:
            outcome = bpy.ops.poseanything.generate(how, again=str(take.folder))
            return {"CANCELLED"} if outcome == {"CANCELLED"} else {"FINISHED"}
        except RuntimeError as error:  # which is how the report of an operator called from Python comes back
            self.report({"ERROR"}, str(error).removeprefix("Error: ").strip())
            return {"CANCELLED"}


def adopt(context, take: Take) -> list[str]:
    """Make the scene's settings, selection and camera those of a take; gives a sentence for each setting that
    can't be what it was. Raises `TakeError` when something of the take is gone."""
    record, scene = take.record, context.scene
    armatures = [scene.objects.get(name) for name in record.get("armatures", ())]
    if not armatures or None in armatures:
        missing = [name for name, obj in zip(record.get("armatures", ()), armatures) if obj is None]
        raise TakeError(
            f"{take.name} was made of {', '.join(missing) or 'an armature'}, which is not in this scene "
            "any more."
        )
    settings = scene.poseanything
    scene_settings.restore(settings, record.get("settings", {}))
    settings.new_seed = False
    seed = record.get("seed")
    settings.seed = settings.seed if seed is None else seed
    settings.engine_name = record.get("engine", "")
    engine = session.get().engine(settings.engine_name)
    notices = restore_engine(scene, engine, take) if engine is not None else []
    settings.use_custom_range = True
    settings.frame_start, settings.frame_end = take.frame_start, take.frame_start + take.duration - 1
    for obj in armatures:
        if obj.name in (limbs := record.get("limbs", {})):
            properties.restore(obj.data, limbs[obj.name])
    if settings.subjects == "SELECTED":
        for obj in context.view_layer.objects.selected:
            obj.select_set(False)
        for obj in armatures:
            obj.select_set(True)
    camera = scene.objects.get(record.get("camera", ""))
    if settings.view == "CAMERA" and camera is not None:
        scene.camera = camera
    return notices


class POSEANYTHING_OT_open_take(_TakeOperator, bpy.types.Operator):
    bl_idname = "poseanything.open_take"
    bl_label = "Open Folder"
    bl_description = "Open the take's folder in the file browser of the system"

    def execute(self, context):
        try:
            folder = chosen_take(context, self.take_id).folder
        except TakeError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if not folder.is_dir():
            self.report({"ERROR"}, f"The folder {folder} is gone.")
            return {"CANCELLED"}
        bpy.ops.wm.path_open(filepath=str(folder))
        return {"FINISHED"}


class POSEANYTHING_OT_add_take(bpy.types.Operator):
    bl_idname = "poseanything.add_take"
    bl_label = "Add Take"
    bl_description = "Put a take from its folder into the sequencer, with as many frames as are there"
    bl_options = {"REGISTER", "UNDO"}

    directory: StringProperty(subtype="DIR_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context, event):
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        try:
            take = read_take(Path(bpy.path.abspath(self.directory)))
            frames = take.frames_on_disk()
            if not frames:
                raise TakeError(f"{take.name} has no frames yet.")
            strips.show_frames(
                target_scene(context, context.scene.poseanything.strips_go_to), uuid.uuid4().hex, take, frames
            )
        except TakeError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"INFO"}, f"{frames} frames of {take.name}")
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (
        POSEANYTHING_OT_use_take_settings,
        POSEANYTHING_OT_make_again,
        POSEANYTHING_OT_open_take,
        POSEANYTHING_OT_add_take,
    )
)
