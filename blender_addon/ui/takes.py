"""The list of takes, and what can be done with the one that is chosen."""

from __future__ import annotations

import bpy

from .. import session
from ..connection.jobs import CANCELLED, FAILED
from ..sequencer import take_list
from ..shared.engines import short_label
from ..takes.take import frame_name
from ..texts import say
from ..texts.translation import tell
from . import pictures
from .text import beside, is_wide, light, paragraph


class POSEANYTHING_UL_takes(bpy.types.UIList):
    def draw_item(self, context, layout, data, item, icon, active_data, active_property):
        row = layout.row(align=True)
        row.label(text=item.name, icon=light(_light(item)))
        if item.rating:
            row.label(text="*" * item.rating)
        if is_wide(context):
            row.label(text=short_label(item.engine_label))


def _light(item) -> str:
    if item.state in (FAILED, CANCELLED):
        return "red"
    return "green" if item.frames >= item.num_frames else "yellow"


def draw_takes(layout, context) -> None:
    """The takes of the scene, kept with the file."""
    kept = take_list.list_of(context)
    if len(kept.items):
        layout.template_list("POSEANYTHING_UL_takes", "", kept, "items", kept, "index", rows=4)
    item = take_list.active_item(context)
    if item is not None:
        _draw_item(layout, context, kept, item)
    row = beside(layout, context)
    row.operator("poseanything.add_take", icon="ADD")
    row.operator("poseanything.clean_up_takes", text="Clean Up", icon="BRUSH_DATA")


def _draw_item(layout, context, kept, item) -> None:
    box = layout.box()
    left = None if item.take_id in session.get().bridge.jobs else take_list.left_of(item)
    if left is not None:
        paragraph(box, context, "Blender was closed before this take was complete.", "INFO")
        box.operator("poseanything.fetch_unfinished", icon="IMPORT")
    folder = take_list.folder_of(item)
    if not folder.is_dir():
        paragraph(box, context, say("The folder {folder} is not there.", folder=folder), "ERROR", alert=True)
        row = box.row(align=True)
        row.operator("poseanything.relink_take", icon="FILE_FOLDER").take_id = item.take_id
        row.operator("poseanything.delete_take", text="", icon="TRASH").take_id = item.take_id
        return
    if item.frames:
        icon = pictures.file_icon(str(folder / frame_name(item.name, item.frames // 2)))
        box.template_icon(icon_value=icon, scale=6.0)
    if item.state != CANCELLED:  # which is said with the number of frames
        text = say(
            "{frames} of {total} frames"
            if item.neural
            else "{frames} of {total} frames, animatic, no neural network",
            frames=item.frames,
            total=item.num_frames,
        )
        paragraph(box, context, text)
    if item.seed and item.neural:
        box.label(text=tell("Seed {seed}", seed=item.seed))
    if item.made:
        box.label(text=item.made)
    box.prop(item, "rating", slider=True)
    if item.sentence:
        paragraph(box, context, take_list.sentence_of(item), most=3)
    column = box.column(align=True)
    row = column.row(align=True)
    row.operator("poseanything.show_take", icon="SEQUENCE").take_id = item.take_id
    row.operator("poseanything.place_take", text="Place", icon="TIME").take_id = item.take_id
    row = beside(column, context)
    row.operator("poseanything.retake", icon="FILE_REFRESH").take_id = item.take_id
    row.operator("poseanything.make_again", icon="LOOP_BACK").take_id = item.take_id
    row = beside(column, context)
    row.operator("poseanything.retake_range", icon="PREVIEW_RANGE").take_id = item.take_id
    if item.seed and item.neural:
        row.operator("poseanything.new_seeds", icon="MOD_NOISE").take_id = item.take_id
    row = beside(column, context)
    row.operator("poseanything.use_take_settings", text="Use Settings", icon="IMPORT").take_id = item.take_id
    row = row.row(align=True)
    row.operator("poseanything.open_take", icon="FILE_FOLDER").take_id = item.take_id
    row.operator("poseanything.delete_take", text="", icon="TRASH").take_id = item.take_id
    if len(kept.items) > 1:
        _draw_compare(layout, context, kept)


def _draw_compare(layout, context, kept) -> None:
    """The chosen take against another."""
    box = layout.box()
    box.prop_search(kept, "other", kept, "items", text="Compare" if is_wide(context) else "", icon="SEQUENCE")
    row = box.row(align=True)
    row.operator("poseanything.solo_take", icon="HIDE_OFF")
    row.operator("poseanything.switch_take", icon="ARROW_LEFTRIGHT")
    if kept.other in kept.items:
        box.prop(kept, "wipe", slider=True)


register, unregister = bpy.utils.register_classes_factory((POSEANYTHING_UL_takes,))
