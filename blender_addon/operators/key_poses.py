"""Frames that carry a pose, chosen by hand."""

from __future__ import annotations

import bpy

from ..errors import ExportError
from ..request.range import clip_range, key_poses, pose_frames
from ..request.spans import selected_keys
from ..sequencer import strips
from ..texts.translation import tell
from ..times import frame_rate, whole_if_close


def _chosen(context) -> set[float]:
    """The scene frames that carry a pose now, where not all do."""
    settings = context.scene.poseanything
    if settings.pose_density == "HAND":
        return set(key_poses(settings))
    if settings.pose_density == "ALL":
        return set()
    try:
        planned = clip_range(context, settings, None)
        frames = pose_frames(context, settings, planned) or ()
    except ExportError:
        return set()
    return {planned.times.at(index) for index in frames}


def _playhead(context) -> float:
    """The scene frame at the playhead; in a sequencer, what is filmed where that shows the shot."""
    scene, edit = context.scene, strips.sequencer_scene(context)
    frame = whole_if_close(scene.frame_current_final)
    if context.area is None or context.area.type != "SEQUENCE_EDITOR" or edit == scene:
        return frame
    try:
        times = clip_range(context, scene.poseanything, None).times
    except ExportError:
        return frame
    return times.at(round(times.index_in(frame_rate(edit) / frame_rate(scene), edit.frame_current)))


def _set(settings, frames) -> None:
    settings.key_poses = " ".join(f"{frame:.10g}" for frame in sorted(frames))
    settings.pose_density = "HAND"


class POSEANYTHING_OT_toggle_key_pose(bpy.types.Operator):
    bl_idname = "poseanything.toggle_key_pose"
    bl_label = "Toggle Key Pose"
    bl_description = (
        "Let this frame carry a pose, or no longer; the clip's first and last frame always do. The frames "
        "that carry one until now are what you begin with"
    )
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        settings, frame = context.scene.poseanything, _playhead(context)
        chosen = _chosen(context)
        there = {other for other in chosen if abs(other - frame) < 0.5}
        _set(settings, chosen - there if there else chosen | {frame})
        return {"FINISHED"}


class POSEANYTHING_OT_key_poses_from_selection(bpy.types.Operator):
    bl_idname = "poseanything.key_poses_from_selection"
    bl_label = "Key Poses from Selected Keys"
    bl_description = "Let the frames of the selected keys carry a pose, beside those that do"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        settings, frames = context.scene.poseanything, set(selected_keys(context))
        if not frames:
            self.report({"ERROR"}, tell("Select keys of the rig in a time line first."))
            return {"CANCELLED"}
        _set(settings, frames | _chosen(context))
        return {"FINISHED"}


class POSEANYTHING_OT_clear_key_poses(bpy.types.Operator):
    bl_idname = "poseanything.clear_key_poses"
    bl_label = "Clear Key Poses"
    bl_description = "Let only the clip's first and last frame carry a pose"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        _set(context.scene.poseanything, ())
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (
        POSEANYTHING_OT_toggle_key_pose,
        POSEANYTHING_OT_key_poses_from_selection,
        POSEANYTHING_OT_clear_key_poses,
    )
)
