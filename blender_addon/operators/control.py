"""Control videos for other models."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import EnumProperty, StringProperty

from .. import session
from ..control.film import export_control_videos
from ..control.kinds import PRESETS
from ..control.settings import choose, chosen
from ..errors import ExportError
from ..request.output import output_folder
from ..request.range import clip_range
from ..request.review import sentences
from ..request.subjects import find_subjects
from ..request.view import find_view
from ..texts.translation import shown, tell
from .files import engine_to_export_for
from .stepped import RangeOperator


class POSEANYTHING_OT_export_control_videos(RangeOperator, bpy.types.Operator):
    bl_idname = "poseanything.export_control_videos"
    bl_label = "Export Control Videos"
    bl_description = (
        "Write the chosen control videos of the range to a new folder in the output folder, aligned and at "
        "the clip's size, for models that take poses, masks or depth; needs no server"
    )
    bl_options = {"REGISTER"}

    directory: StringProperty(
        name="Folder",
        description="A new folder is made in this one; empty is the scene's output folder",
        subtype="DIR_PATH",
        options={"SKIP_SAVE"},
    )

    def steps(self, context):
        settings, control = context.scene.poseanything, context.scene.poseanything_control
        kinds = chosen(control)
        if not kinds:
            raise ExportError("No control video is chosen; choose at least one.")
        engine = engine_to_export_for(settings)
        output = (
            Path(bpy.path.abspath(self.directory)) if self.directory else output_folder(context, settings)
        )
        return (
            yield from export_control_videos(
                context,
                settings,
                kinds,
                control.file_format == "MP4",
                clip_range(context, settings, engine),
                find_subjects(context, settings),
                find_view(context, settings),
                engine,
                output,
                self.interactive,
            )
        )

    def finish(self, context, result):
        folder, findings = result
        session.get().findings = findings
        for sentence in sentences(findings):
            self.report({"WARNING"}, shown(sentence))
        self.report({"INFO"}, tell("Exported to {folder}", folder=folder))
        return {"FINISHED"}


class POSEANYTHING_OT_use_control_preset(bpy.types.Operator):
    bl_idname = "poseanything.use_control_preset"
    bl_label = "Use Preset"
    bl_description = "Choose the control videos that a model takes"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    preset: EnumProperty(
        name="Preset", items=tuple((name, label, "") for name, (label, _) in PRESETS.items())
    )

    def execute(self, context):
        choose(context.scene.poseanything_control, PRESETS[self.preset][1])
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (POSEANYTHING_OT_export_control_videos, POSEANYTHING_OT_use_control_preset)
)
