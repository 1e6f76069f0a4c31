"""The folders of takes: open, find, add, move to the trash."""

from __future__ import annotations

import uuid
from pathlib import Path

import bpy
from bpy.props import IntProperty, StringProperty

from .. import session
from ..buttons import Button
from ..sequencer import strips, take_list
from ..sequencer.edit_scene import target_scene
from ..takes.take import RECORD, TakeError, read_take
from ..takes.trash import move_to_trash
from ..texts import say
from ..texts.translation import shown, tell
from .folders import FolderOperator
from .refusal import refuse
from .takes import TakeOperator, chosen

LISTED = 12
"""Takes that are named before something is done to all of them."""


class POSEANYTHING_OT_open_take(TakeOperator, bpy.types.Operator):
    bl_idname = "poseanything.open_take"
    bl_label = "Open Folder"
    bl_description = "Open the take's folder in the file browser of the system"

    def execute(self, context):
        try:
            take_id, take = chosen(context, self.take_id)
        except TakeError as error:
            return refuse(self, error)
        folder = take.folder
        if not folder.is_dir():
            button = Button("poseanything.relink_take", "Find Folder", (("take_id", take_id),))
            return refuse(self, TakeError(say("The folder {folder} is gone.", folder=folder), *button))
        try:
            bpy.ops.wm.path_open(filepath=str(folder))
        except RuntimeError:  # as where no desktop is installed
            self.report(
                {"ERROR"}, tell("No program opens folders here; the take is in {folder}.", folder=folder)
            )
            return {"CANCELLED"}
        return {"FINISHED"}


class POSEANYTHING_OT_relink_take(FolderOperator, bpy.types.Operator):
    bl_idname = "poseanything.relink_take"
    bl_label = "Find Folder"
    bl_description = (
        "Choose where the take's folder is now, or the folder that holds it and others; strips follow"
    )
    bl_options = {"REGISTER", "UNDO"}

    take_id: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context):
        item = take_list.chosen_item(context, self.take_id)
        if item is None:
            self.report({"ERROR"}, tell("Choose a take in the list."))
            return {"CANCELLED"}
        try:
            found = take_list.relink(item, Path(bpy.path.abspath(self.directory)))
        except TakeError as error:
            return refuse(self, error)
        session.get().cured(type(self).bl_idname)
        self.report(
            {"INFO"},
            tell("{take} found", take=item.name) if found == 1 else tell("{count} takes found", count=found),
        )
        return {"FINISHED"}


class POSEANYTHING_OT_add_take(FolderOperator, bpy.types.Operator):
    bl_idname = "poseanything.add_take"
    bl_label = "Add Take"
    bl_description = "Put a take from its folder into the sequencer, with as many frames as are there"
    bl_options = {"REGISTER", "UNDO"}

    dropped_at: IntProperty(options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context, event):
        if self.directory:  # a file of it was dropped into a sequencer
            self.dropped_at = round(context.region.view2d.region_to_view(event.mouse_region_x, 0)[0])
            return self.execute(context)
        return super().invoke(context, event)

    def execute(self, context):
        try:
            take = read_take(Path(bpy.path.abspath(self.directory)))
            frames = take.frames_on_disk()
            if not frames:
                raise TakeError(say("{take} has no frames yet.", take=take.name))
            item = take_list.find_folder(take.folder)
            take_id = item.take_id if item is not None else uuid.uuid4().hex
            if self.properties.is_property_set("dropped_at"):
                edit = strips.sequencer_scene(context)
                strips.add_strip(edit, take_id, take, frames, self.dropped_at)
            else:
                target = target_scene(context, context.scene.poseanything.strips_go_to)
                strips.show_frames(target, take_id, take, frames)
            if item is None:
                take_list.enter(context.scene, take_id, take, frames)
        except TakeError as error:
            return refuse(self, error)
        self.report({"INFO"}, tell("{frames} frames of {take}", frames=frames, take=take.name))
        return {"FINISHED"}


class POSEANYTHING_FH_take(bpy.types.FileHandler):
    bl_idname = "POSEANYTHING_FH_take"
    bl_label = "PoseAnything Take"
    bl_import_operator = POSEANYTHING_OT_add_take.bl_idname
    bl_file_extensions = Path(RECORD).suffix

    @classmethod
    def poll_drop(cls, context):
        area, region = context.area, context.region
        return (
            area is not None
            and area.type == "SEQUENCE_EDITOR"
            and region is not None
            and region.type == "WINDOW"
        )


class POSEANYTHING_OT_delete_take(bpy.types.Operator):
    bl_idname = "poseanything.delete_take"
    bl_label = "Delete Take"
    bl_description = "Move the take's folder to the system's trash and take its strips out of the sequencer"
    bl_options = {"REGISTER", "UNDO"}

    take_id: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context, event):
        item = take_list.chosen_item(context, self.take_id)
        if item is None:
            return self.execute(context)
        return context.window_manager.invoke_confirm(
            self,
            event,
            title=tell("Delete {take}?", take=item.name),
            message=tell("Its folder goes to the system's trash, and its strips leave the sequencer."),
            confirm_text=tell("Move to Trash"),
        )

    def execute(self, context):
        item = take_list.chosen_item(context, self.take_id)
        if item is None:
            self.report({"ERROR"}, tell("Choose a take in the list."))
            return {"CANCELLED"}
        return _delete(self, [item])


class POSEANYTHING_OT_clean_up_takes(bpy.types.Operator):
    bl_idname = "poseanything.clean_up_takes"
    bl_label = "Clean Up Unused"
    bl_description = (
        "Move all takes to the system's trash that no strip shows and that have no rating, those that failed "
        "among them"
    )
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        if not take_list.unused(context):
            cls.poll_message_set("Every take is shown by a strip or has a rating")
            return False
        return True

    def invoke(self, context, event):
        return context.window_manager.invoke_props_dialog(self, confirm_text="Move to Trash")

    def draw(self, context):
        found = take_list.unused(context)
        self.layout.label(text=tell("To the trash, takes: {count}", count=len(found)))
        for item in found[:LISTED]:
            self.layout.label(text=item.name, icon="SEQUENCE")
        if len(found) > LISTED:
            self.layout.label(text=tell("and {count} more", count=len(found) - LISTED))

    def execute(self, context):
        return _delete(self, take_list.unused(context))


def _delete(operator: bpy.types.Operator, items: list) -> set[str]:
    """Delete takes one after the other; what can't be moved stays listed, and is said."""
    deleted = []
    bridge = session.get().bridge
    for take_id, name, folder, left in [
        (item.take_id, item.name, take_list.folder_of(item), take_list.left_of(item)) for item in items
    ]:
        job = bridge.jobs.get(take_id)
        if job is not None and session.get().in_progress(job):
            operator.report({"ERROR"}, tell("{take} is being made; cancel it first.", take=name))
            continue
        try:
            move_to_trash(folder)
        except TakeError as error:
            operator.report({"ERROR"}, shown(error))
            continue
        if left is not None:  # a server makes it for a Blender that has ended
            bridge.let_go(left.account, left.job)
        strips.remove(take_id)
        take_list.leave(take_id)
        deleted.append(name)
    if deleted:
        operator.report({"INFO"}, tell("Moved to the trash: {names}", names=", ".join(deleted[:LISTED])))
    return {"FINISHED"} if deleted else {"CANCELLED"}


register, unregister = bpy.utils.register_classes_factory(
    (
        POSEANYTHING_OT_open_take,
        POSEANYTHING_OT_relink_take,
        POSEANYTHING_OT_add_take,
        POSEANYTHING_FH_take,
        POSEANYTHING_OT_delete_take,
        POSEANYTHING_OT_clean_up_takes,
    )
)
