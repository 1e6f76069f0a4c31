"""A take by its id or as the one that is chosen; use its settings, show it in the sequencer."""

from __future__ import annotations

import bpy
from bpy.props import StringProperty

from .. import session
from .. import settings as scene_settings
from ..request.record import recorded_armatures, restore_engine
from ..rig import properties
from ..sequencer import strips, take_list
from ..sequencer.edit_scene import find_edit_scene, show, target_scene
from ..takes.take import Take, TakeError
from ..texts.translation import shown, tell
from .refusal import refuse


def chosen(context, take_id: str = "") -> tuple[str, Take]:
    """A take and its id: by its id, else that of the sequencer's active strip, else the newest. Raises
    `TakeError`."""
    jobs = session.get().bridge.jobs
    if take_id:
        if take_id in jobs:
            return take_id, jobs[take_id].take
        if (item := take_list.find_item(take_id)) is not None and take_list.folder_of(item).is_dir():
            return take_id, take_list.take_of(item)
        if (found := strips.find_strip(take_id)) is not None:
            return take_id, strips.take_of(found[1])
    if (strip := strips.active_take_strip(strips.sequencer_scene(context))) is not None:
        return strip[strips.TAKE_ID], strips.take_of(strip)
    if jobs:
        newest = list(jobs.values())[-1]
        return newest.id, newest.take
    edit = find_edit_scene()
    if edit is not None and (strip := strips.active_take_strip(edit)) is not None:
        return strip[strips.TAKE_ID], strips.take_of(strip)
    if (item := take_list.active_item(context)) is not None:
        return item.take_id, take_list.take_of(item)
    raise TakeError("Select a generated strip in the sequencer")


def chosen_take(context, take_id: str = "") -> Take:
    """The take alone. Raises as `chosen` does."""
    return chosen(context, take_id)[1]


class TakeOperator:
    """Base of operators that do something with one take."""

    take_id: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context):
        try:
            chosen_take(context)
        except TakeError as error:
            cls.poll_message_set(shown(error))
            return False
        return True


class POSEANYTHING_OT_use_take_settings(TakeOperator, bpy.types.Operator):
    bl_idname = "poseanything.use_take_settings"
    bl_label = "Use Take Settings"
    bl_description = (
        "Set this scene's prompt, seed, range and all other settings to those the take was made with"
    )
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        try:
            take = chosen_take(context, self.take_id)
            notices = adopt(context, take)
        except TakeError as error:
            return refuse(self, error)
        for notice in notices:
            self.report({"WARNING"}, shown(notice))
        self.report({"INFO"}, tell("Settings of {take}", take=take.name))
        return {"FINISHED"}


def adopt(context, take: Take) -> list[str]:
    """Make the scene's settings, selection and camera those of a take; gives a sentence for each setting that
    can't be what it was. Raises `TakeError` when something of the take is gone."""
    record, scene = take.record, context.scene
    armatures = recorded_armatures(context, take)
    settings = scene.poseanything
    scene_settings.restore(settings, record.get("settings", {}))
    settings.new_seed = False
    seed = record.get("seed")
    settings.seed = settings.seed if seed is None else seed
    settings.engine_name = record.get("engine", "")
    engine = session.get().engine(settings.engine_name)
    notices = restore_engine(scene, engine, take) if engine is not None else []
    settings.use_custom_range = True
    settings.frame_start, settings.frame_end = round(take.times.start), round(take.times.end)
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


class POSEANYTHING_OT_show_take(TakeOperator, bpy.types.Operator):
    bl_idname = "poseanything.show_take"
    bl_label = "Show"
    bl_description = (
        "Select the take's strip and go to its beginning in the sequencer, in a window of its own where none "
        "is open. A take without a strip gets one"
    )
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        try:
            take_id, take = chosen(context, self.take_id)
            found = strips.find_strip(take_id)
            if found is None:
                target = target_scene(context, context.scene.poseanything.strips_go_to)
                strips.show_frames(target, take_id, take, max(take.frames_on_disk(), 1))
                found = strips.find_strip(take_id)
        except TakeError as error:
            return refuse(self, error)
        scene, strip = found
        strips.make_active(scene, strip)
        scene.frame_set(strips.span(strip)[0])
        _open_sequencer(context, scene)
        return {"FINISHED"}


def _open_sequencer(context, scene: bpy.types.Scene) -> None:
    """Make a sequencer show a scene, in a new window where none is open."""
    show(context, scene)
    if bpy.app.background or context.window is None:
        return
    windows = context.window_manager.windows
    open_ones = [area for window in windows for area in window.screen.areas if area.type == "SEQUENCE_EDITOR"]
    if open_ones and strips.sequencer_scene(context) == scene:
        return
    if hasattr(context.workspace, "sequencer_scene"):
        bpy.ops.wm.window_new()
    else:  # before Blender 5.0 a sequencer shows its window's scene
        bpy.ops.wm.window_new_main()
        windows[-1].scene = scene
    area = max(windows[-1].screen.areas, key=lambda area: area.width * area.height)
    area.type = "SEQUENCE_EDITOR"
    area.spaces.active.view_type = "SEQUENCER_PREVIEW"


register, unregister = bpy.utils.register_classes_factory(
    (POSEANYTHING_OT_use_take_settings, POSEANYTHING_OT_show_take)
)
