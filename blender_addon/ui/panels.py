"""The panels in the sidebars of the 3D view and the sequencer."""

from __future__ import annotations

import bpy

from .. import preferences, session
from ..control.kinds import KINDS, PRESETS
from ..control.settings import preset_of
from ..errors import ExportError
from ..ground_truth.first_frame import Alignment
from ..operators.colour import changes_colours
from ..operators.serving import server_blockers
from ..request.blockers import SETTINGS, scene_blockers, size_blockers
from ..request.build import alignment_of
from ..request.finding import Finding, setting
from ..request.look import look_of, unsuited
from ..request.output import output_folder
from ..request.range import clip_range, clip_shots
from ..request.subjects import find_subjects
from ..sequencer import strips
from ..shared.engines import short_label
from ..takes.take import TakeError
from ..texts import say
from ..texts.translation import shown, tell
from ..times import frame_rate
from ..view import fit
from . import limbs, pictures
from .camera import draw_camera
from .engine import draw_advanced, draw_engine, has_advanced
from .key_poses import draw_key_poses
from .live import draw_switch
from .presets import POSEANYTHING_PT_control_presets, POSEANYTHING_PT_presets
from .progress import draw_findings, draw_progress
from .refresh import TAB, note_told
from .server import draw_server
from .takes import draw_takes
from .text import beside, field, is_wide, menu_row, paragraph, switch
from .video import draw_handles, draw_picture_subject, draw_video

REASONS = 8
"""Bones of which the panel says why they are drawn or not."""


class _Panel:
    bl_region_type = "UI"
    bl_category = TAB
    page = ""
    """The page that tells what the panel does."""

    def draw_header_preset(self, context):
        if self.page:
            button = self.layout.operator("poseanything.help", text="", icon="QUESTION", emboss=False)
            button.page = self.page

    def split(self):
        """The layout as properties editors have it."""
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        return layout


class _View3D(_Panel):
    bl_space_type = "VIEW_3D"


class _Sub(_View3D):
    bl_parent_id = "POSEANYTHING_PT_main"
    bl_options = {"DEFAULT_CLOSED"}


class _Sequencer(_Panel):
    bl_space_type = "SEQUENCE_EDITOR"


class _Main:
    bl_label = "PoseAnything"
    page = "generate"

    def draw_header_preset(self, context):
        POSEANYTHING_PT_presets.draw_panel_header(self.layout)
        super().draw_header_preset(context)

    def draw(self, context):
        layout, settings = self.layout, context.scene.poseanything
        row = layout.row()
        row.scale_y = 1.6
        row.operator("poseanything.generate", icon="RENDER_ANIMATION")
        engine = session.get().engine(settings.engine_name)
        blockers: list[Finding] = []
        if session.get().exporting is None:
            blockers += [
                *scene_blockers(context),
                *limbs.blockers(context),
                *size_blockers(context, engine),
                *server_blockers(context),
            ]
            draw_findings(layout, context, blockers)
            note_told(context.area, blockers)
        try:
            shots = [shot.planned for shot in clip_shots(context, settings, engine)]
        except ExportError:
            pass  # said above, or it is when Generate is pressed
        else:
            seconds = sum(planned.times.length for planned in shots) / frame_rate(context.scene)
            asked, made = (sum(each) for each in zip(*((p.times.asked, p.num_frames) for p in shots)))
            text = say(
                "{count} frames, {width} x {height}, {seconds:.1f} s",
                count=asked,
                width=shots[0].width,
                height=shots[0].height,
                seconds=seconds,
            )
            paragraph(layout, context, text, "SEQUENCE")
            if len(shots) > 1:
                text = say("{count} clips, one for each camera's shot", count=len(shots))
                paragraph(layout, context, text, "BLANK1")
            if made > asked:
                text = say("{engine} makes {total} frames", engine=engine.short_label, total=made)
                paragraph(layout, context, text, "BLANK1")
        if engine is not None and not engine.neural:
            text = say("{name}: animatic, no neural network", name=engine.short_label)
            paragraph(layout, context, text, "INFO")
        draw_progress(layout, context, blockers)
        scene, edit = context.scene, strips.sequencer_scene(context)
        if scene.render.use_sequencer and any(strips.TAKE_ID in strip for strip in strips.all_strips(scene)):
            box = layout.box()
            paragraph(
                box, context, "F12 renders the takes in this scene's sequencer, not the scene.", "ERROR"
            )
            box.prop(scene.render, "use_sequencer", text="Render the Sequencer")
        scene = edit
        if changes_colours(scene) and session.get().bridge.jobs:
            view = scene.view_settings.view_transform
            paragraph(
                layout,
                context,
                say("{view} changes the colors of generated frames in this scene.", view=view),
                "COLOR",
            )
            layout.operator("poseanything.use_standard_view")


class POSEANYTHING_PT_main(_Main, _View3D, bpy.types.Panel):
    def draw_header_preset(self, context):
        if is_wide(context):
            draw_switch(self.layout, context, "")  # a narrow 3D view has no room for it in its header
        super().draw_header_preset(context)


class POSEANYTHING_PT_rig(_Sub, bpy.types.Panel):
    bl_label = "Rig"
    page = "rig"

    def draw(self, context):
        layout, settings = self.split(), context.scene.poseanything
        if settings.pose_source == "VIDEO":
            field(layout.row(), context, settings, "pose_source", expand=True)
            paragraph(layout, context, "Poses come from a video; see the Video panel.", "FILE_MOVIE")
            return
        field(layout, context, settings, "subjects")
        if settings.subjects == "COLLECTION":
            field(layout, context, settings, "collection")
        field(layout, context, settings, "pose_look")
        engine = session.get().engine(settings.engine_name)
        if sentence := unsuited(settings, engine):
            draw_findings(
                layout, context, [setting(sentence, "Use What Suits", f"{SETTINGS}.pose_look", "AUTO")]
            )
        switch(layout, context, settings, "show_limbs", heading="Limbs", text="Show")
        subjects = find_subjects(context, settings)
        if not subjects:
            return  # the main panel says what to do
        try:
            choices = limbs.choices(subjects, look_of(settings, engine))
        except ExportError:
            choices = []  # the main panel says what is wrong
        for obj, choice in choices:
            layout.label(
                text=tell(
                    "{rig}: limbs {limbs}, parts {parts}",
                    rig=obj.name,
                    limbs=len(choice.limbs),
                    parts=len(choice.parts),
                ),
                icon="OUTLINER_OB_ARMATURE" if choice.human is not None else "ARMATURE_DATA",
            )
        for data, rig in {obj.data: obj for obj in subjects if obj.type == "ARMATURE"}.items():
            column = layout.column()
            field(column, context, data.poseanything, "digits")
            field(column, context, data.poseanything, "face")
            if data.library:
                override = column.operator("poseanything.override_armature", icon="LIBRARY_DATA_OVERRIDE")
                override.armature = rig.name


class POSEANYTHING_PT_video(_Sub, bpy.types.Panel):
    bl_label = "Video"
    page = "video"

    def draw(self, context):
        draw_video(self.split(), context)


class POSEANYTHING_PT_bones(_View3D, bpy.types.Panel):
    bl_label = "Bones"
    page = "rig"
    bl_parent_id = "POSEANYTHING_PT_rig"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context):
        rig = context.object
        return (
            rig is not None
            and rig.type == "ARMATURE"
            and (context.mode == "POSE" or len(rig.data.collections_all) > 0)
        )

    def draw(self, context):
        layout = self.split()
        if context.mode == "POSE":
            layout.label(text="Selected Bones")
            row = layout.row(align=True)
            for word in ("AUTO", "DRAW", "SKIP"):
                row.operator("poseanything.set_limb", text=word.capitalize()).limb = word
            _draw_reasons(layout, context)
        layout.operator("poseanything.look_at_motion", icon="HIDE_OFF")
        column = layout.column(align=True)
        for collection in context.object.data.collections_all:
            field(column, context, collection.poseanything, "limb", text=collection.name)


def _draw_reasons(layout, context):
    """Why each selected bone is drawn or not, the active one's first."""
    try:
        settings = context.scene.poseanything
        look = look_of(settings, session.get().engine(settings.engine_name))
        [(_, choice)] = limbs.choices([context.object], look)
    except ExportError:
        return  # the Rig panel says what is wrong
    bones = [context.active_pose_bone, *context.selected_pose_bones]
    chosen = list(dict.fromkeys(bone.name for bone in bones if bone is not None))
    for name in chosen[:REASONS]:
        reason = choice.reasons.get(name, "")
        icon = "CHECKMARK" if str(reason).startswith("drawn") else "X"
        paragraph(layout, context, say("{name}: {reason}", name=name, reason=reason), icon)
    if len(chosen) > REASONS:
        layout.label(text=tell("and {count} more bones", count=len(chosen) - REASONS))


class POSEANYTHING_PT_shot(_Sub, bpy.types.Panel):
    bl_label = "Shot"
    page = "shot"
    bl_options = set()

    def draw(self, context):
        layout, scene = self.split(), context.scene
        settings = scene.poseanything
        switch(layout, context, settings, "use_custom_range", heading="Range", text="Custom")
        if settings.use_custom_range:
            column = layout.column(align=True)
            field(column, context, settings, "frame_start")
            field(column, context, settings, "frame_end")
        field(layout, context, settings, "pacing")
        field(layout, context, settings, "frame_step" if settings.pacing == "STEP" else "clip_rate")
        field(layout, context, settings, "speed")
        field(layout, context, settings, "long_side")
        field(layout, context, settings, "view")
        field(layout, context, settings, "first_frame_source")
        if settings.first_frame_source == "PICTURE":
            field(layout, context, settings, "first_frame_path")
            column = layout.column(align=True)
            for name in ("picture_scale", "picture_x", "picture_y"):
                field(column, context, settings, name)
            draw_handles(layout, context)
            _draw_crop(layout, context, settings)
            draw_picture_subject(layout, context)
        elif settings.first_frame_source != "VIDEO":
            layout.operator("poseanything.save_first_frame", text="Save to Paint Over", icon="FILE_IMAGE")
        engine = session.get().engine(settings.engine_name)
        draw_key_poses(layout, context, engine)


def _draw_crop(layout, context, settings):
    """What of the picture will be seen."""
    size = (
        pictures.size_of(bpy.path.abspath(settings.first_frame_path)) if settings.first_frame_path else None
    )
    if size is None or alignment_of(settings) != Alignment():
        return
    try:
        planned = clip_range(context, settings, session.get().engine(settings.engine_name))
    except ExportError:
        return  # the main panel says what is wrong
    left, top, right, bottom = fit(*size, planned.width, planned.height).shown
    across, down = 1 - (right - left), 1 - (bottom - top)
    if max(across, down) < 0.005:
        text = say("{width} x {height}: all of it is seen", width=size[0], height=size[1])
    else:
        text = say(
            "{width} x {height}: left and right lose {share:.0%} each"
            if across > down
            else "{width} x {height}: top and bottom lose {share:.0%} each",
            width=size[0],
            height=size[1],
            share=max(across, down) / 2,
        )
    paragraph(layout, context, text, "FULLSCREEN_ENTER")


class POSEANYTHING_PT_camera(_Sub, bpy.types.Panel):
    bl_label = "Camera"
    page = "camera"

    def draw(self, context):
        draw_camera(self.split(), context)


class POSEANYTHING_PT_prompt(_Sub, bpy.types.Panel):
    bl_label = "Prompt"
    page = "prompt"
    bl_options = set()

    def draw(self, context):
        layout, settings = self.layout, context.scene.poseanything
        engine = session.get().engine(settings.engine_name)
        if engine is not None and not engine.uses_prompt:
            text = say("{engine} does not use the prompt", engine=engine.short_label)
            paragraph(layout, context, text, "INFO")
        layout.prop(settings, "prompt", text="", placeholder="Describe the video")
        layout.prop(settings, "negative_prompt", text="", placeholder="Describe what to avoid")


class POSEANYTHING_PT_engine(_Sub, bpy.types.Panel):
    bl_label = "Engine"
    page = "engine"

    def draw(self, context):
        draw_engine(self.split(), context)


class POSEANYTHING_PT_advanced(_View3D, bpy.types.Panel):
    bl_label = "Advanced"
    page = "engine"
    bl_parent_id = "POSEANYTHING_PT_engine"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context):
        return has_advanced(context)

    def draw(self, context):
        draw_advanced(self.split(), context)


class POSEANYTHING_PT_output(_Sub, bpy.types.Panel):
    bl_label = "Output"
    page = "output"

    def draw(self, context):
        layout, settings = self.split(), context.scene.poseanything
        placeholder = preferences.get(context).output_folder
        field(layout, context, settings, "output_folder", placeholder=placeholder)
        field(layout, context, settings, "take_name", placeholder=context.scene.name)
        field(layout, context, settings, "make_movie")
        field(layout, context, settings, "strips_go_to")
        try:
            folder = output_folder(context, settings)
        except ExportError as error:
            draw_findings(layout, context, [Finding(str(error), *error.button)])
        else:
            paragraph(layout, context, str(folder), "FILE_FOLDER")
            if not bpy.data.is_saved:
                paragraph(layout, context, "Save the file to keep takes beside it.", "INFO")
                layout.operator("wm.save_mainfile", icon="FILE_TICK")
        layout.operator("poseanything.export_skeleton", icon="EXPORT")


class POSEANYTHING_PT_control(_Sub, bpy.types.Panel):
    bl_label = "Control Videos"
    page = "control-videos"

    def draw(self, context):
        layout, control = self.split(), context.scene.poseanything_control
        name = preset_of(control)
        label = PRESETS[name][0] if name else "Custom"
        row = menu_row(layout, context, "Preset")
        row.popover(POSEANYTHING_PT_control_presets.bl_idname, text=shown(label))
        column = layout.column(heading="Videos", align=True)
        for kind in KINDS:
            field(column, context, control, kind)
        field(layout.row(), context, control, "file_format", expand=True)
        layout.operator("poseanything.export_control_videos", icon="EXPORT")


class POSEANYTHING_PT_server(_Sub, bpy.types.Panel):
    bl_label = "Server"
    page = "server"

    def draw(self, context):
        draw_server(self.layout, context)


class POSEANYTHING_PT_takes(_Sub, bpy.types.Panel):
    bl_label = "Takes"
    page = "takes"

    def draw(self, context):
        draw_takes(self.layout, context)


class POSEANYTHING_PT_sequencer(_Main, _Sequencer, bpy.types.Panel):
    pass


class POSEANYTHING_PT_sequencer_video(_Sequencer, bpy.types.Panel):
    bl_label = "Video"
    page = "video"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context):
        draw_video(self.split(), context)


class POSEANYTHING_PT_strip(_Sequencer, bpy.types.Panel):
    bl_label = "Take"
    page = "takes"

    @classmethod
    def poll(cls, context):
        return strips.active_take_strip(strips.sequencer_scene(context)) is not None

    def draw(self, context):
        layout = self.layout
        strip = strips.active_take_strip(strips.sequencer_scene(context))
        try:
            take = strips.take_of(strip)
        except TakeError as error:
            paragraph(layout, context, str(error), "ERROR", alert=True)
            button = layout.operator("wm.path_open", text="Open Folder", icon="FILE_FOLDER")
            button.filepath = str(strips.folder_of(strip))
            return
        record = take.record
        layout.label(text=take.name, icon="SEQUENCE")
        label = short_label(record.get("engine_label", ""))
        neural = record.get("neural", True)
        paragraph(
            layout, context, label if neural else say("{name}: animatic, no neural network", name=label)
        )
        if (seed := record.get("seed")) is not None:
            layout.label(text=tell("Seed {seed}", seed=seed))
        if prompt := record.get("settings", {}).get("prompt"):
            paragraph(layout, context, prompt)
        row = beside(layout, context)
        row.operator("poseanything.retake", icon="FILE_REFRESH")
        row.operator("poseanything.make_again", icon="LOOP_BACK")
        layout.operator("poseanything.use_take_settings", icon="IMPORT")
        layout.operator("poseanything.open_take", icon="FILE_FOLDER")


class POSEANYTHING_PT_sequencer_takes(_Sequencer, bpy.types.Panel):
    bl_label = "Takes"
    page = "takes"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context):
        draw_takes(self.layout, context)


register, unregister = bpy.utils.register_classes_factory(
    (
        POSEANYTHING_PT_main,
        POSEANYTHING_PT_rig,
        POSEANYTHING_PT_video,
        POSEANYTHING_PT_bones,
        POSEANYTHING_PT_shot,
        POSEANYTHING_PT_camera,
        POSEANYTHING_PT_prompt,
        POSEANYTHING_PT_engine,
        POSEANYTHING_PT_advanced,
        POSEANYTHING_PT_output,
        POSEANYTHING_PT_takes,
        POSEANYTHING_PT_control,
        POSEANYTHING_PT_server,
        POSEANYTHING_PT_sequencer,
        POSEANYTHING_PT_sequencer_video,
        POSEANYTHING_PT_strip,
        POSEANYTHING_PT_sequencer_takes,
    )
)
