"""The panel of a video's poses, and the poses drawn over the video in the sequencer's preview."""

from __future__ import annotations

import math

import bpy
import numpy as np

from .. import session
from ..connection.jobs import FAILED, RUNNING
from ..errors import ExportError
from ..operators.video import asked_for
from ..request import kept_poses
from ..request.video_time import index_in, shown_index
from ..sequencer import footage, strips
from ..shared.pose import PoseSequence
from ..texts import say
from ..texts.translation import shown, tell
from ..times import frame_rate
from .overlay import draw_part_strokes
from .progress import draw_start
from .text import beside, field, paragraph

_handle: object | None = None


def draw_video(layout, context) -> None:
    """Where the video is, what of it is the subject, what was found, and how it is laid on the clip."""
    settings, video = context.scene.poseanything, context.scene.poseanything_video
    field(layout.row(), context, settings, "pose_source", expand=True)
    found = footage.find(video.strip)
    column = layout.column(align=True)
    if found is not None:
        edit, strip = found
        first, end = strips.span(strip)
        seconds = (end - first) / frame_rate(edit)
        column.label(
            text=tell(
                "{strip}: {count} frames, {seconds:.1f} s",
                strip=strip.name,
                count=end - first,
                seconds=seconds,
            ),
            icon="FILE_MOVIE",
        )
    row = beside(column, context)
    row.operator("poseanything.open_video", icon="FILE_FOLDER")
    row.operator("poseanything.use_active_strip", text="Active Strip", icon="SEQUENCE")
    if found is not None:
        row = layout.row(align=True)
        row.operator("poseanything.pick_subject", icon="RESTRICT_SELECT_OFF")
        row.label(text=shown(_said(video.pick, video.place)))
        field(layout, context, video, "skeleton")
        row = layout.row()
        row.scale_y = 1.3
        row.operator("poseanything.find_poses", icon="ARMATURE_DATA")
    draw_search(layout, context, of_picture=False)
    try:
        kept = kept_poses.read(video.poses)
    except ExportError as error:
        paragraph(layout, context, str(error), "ERROR", alert=True)
        return
    if kept is None:
        return
    pose = kept.found.pose
    row = layout.row(align=True)
    row.label(
        text=tell("{total} frames, {count} limbs", total=pose.num_frames, count=len(pose.limbs)),
        icon="CHECKMARK",
    )
    row.operator("poseanything.forget_poses", text="", icon="X").what = "poses"
    if kept.found.note:
        paragraph(layout, context, kept.found.note, "INFO")
    if found is not None and shown_index(context.scene, kept, context.scene.frame_start) is None:
        paragraph(layout, context, "The strip's speed was changed since; find the poses again.", "ERROR")
    layout.prop(context.scene.poseanything_shown, "video_poses")
    column = layout.column(align=True)
    for name in ("scale", "x", "y"):
        field(column, context, video, name)
    draw_handles(layout, context)
    layout.operator("poseanything.place_poses", icon="PIVOT_BOUNDBOX")


def draw_handles(layout, context) -> None:
    """The switch of the handles that lay a picture or poses under the limbs."""
    row = layout.row()
    row.use_property_split = False  # all of the width for its text
    row.prop(context.scene.poseanything_shown, "first_frame", text="Handles in Camera View", toggle=True)


def draw_picture_subject(layout, context) -> None:
    """What of the picture that the clip begins with is the subject."""
    video, settings = context.scene.poseanything_video, context.scene.poseanything
    row = beside(layout, context)
    row.operator("poseanything.pick_subject", icon="RESTRICT_SELECT_OFF").of_picture = True
    row.operator("poseanything.find_subject", icon="MOD_MASK")
    draw_search(layout, context, of_picture=True)
    try:
        kept = kept_poses.read(video.mask)
    except ExportError as error:
        paragraph(layout, context, str(error), "ERROR", alert=True)
        return
    if kept is not None:
        here = bpy.path.abspath(kept.source.picture) == bpy.path.abspath(settings.first_frame_path)
        share = (kept.found.mask > 0).mean()
        row = layout.row(align=True)
        text = (
            say("Subject: {share:.0%} of the picture", share=share)
            if here
            else say("Subject: of another picture")
        )
        row.label(text=shown(text), icon="CHECKMARK" if here else "ERROR")
        row.operator("poseanything.forget_poses", text="", icon="X").what = "mask"
    elif video.picture_pick != "NONE":
        layout.label(text=shown(_said(video.picture_pick, video.picture_place)), icon="BLANK1")


def _said(kind: str, place) -> str:
    if kind == "CLICK":
        return say("Clicked at {x:.0%}, {y:.0%}", x=place[0], y=place[1])
    if kind == "BOX":
        return say("Box of {width:.0%} x {height:.0%}", width=place[2] - place[0], height=place[3] - place[1])
    return say("Else what moves")


def draw_search(layout, context, of_picture: bool) -> None:
    """How far the search is, or why it ended."""
    asked, searches = asked_for(context.scene, of_picture), session.get().bridge.searches
    search = searches.get(asked.job) if asked is not None else None
    if search is not None and not search.ended:
        row = layout.box().row(align=True)
        if search.state == RUNNING:
            row.progress(factor=search.fraction(), text=shown(search.describe()))
        else:
            row.label(text=shown(search.describe()), icon="SORTTIME")
        row.operator("poseanything.cancel_search", text="", icon="X").job = search.id
    elif asked is not None:
        paragraph(layout, context, "Asked for at a server that does not answer now; start it.", "SORTTIME")
        draw_start(layout, context)
    else:
        last = next((each for each in reversed(searches.values()) if each.of_picture == of_picture), None)
        if last is not None and last.state == FAILED:
            paragraph(layout, context, last.sentence, "ERROR", alert=True)


# --- over the video


def to_preview(strip: bpy.types.Strip, scene: bpy.types.Scene, size: tuple[int, int]):
    """A function from points [N, 2] of a strip's picture, of `size` and y down, to the preview's own space: x
    to the right and y up from the middle, in pixels of the render."""
    transform = strip.transform
    whole = np.array(footage.size_of(strip), float)
    scale = np.array([transform.scale_x, transform.scale_y]) * whole
    origin = np.array(getattr(transform, "origin", (0.5, 0.5))) - 0.5
    render = scene.render
    aspect = np.array([render.pixel_aspect_x / render.pixel_aspect_y, 1.0])
    sine, cosine = math.sin(transform.rotation), math.cos(transform.rotation)
    turn = np.array([[cosine, sine], [-sine, cosine]])

    def place(points: np.ndarray) -> np.ndarray:
        # Frames were read as they are shown, flips and all.
        middle = (points / size - 0.5) * (1, -1)
        turned = ((middle - origin) * scale) @ turn + origin * scale
        return (turned + (transform.offset_x, transform.offset_y)) * aspect

    return place


def pose_at(context) -> tuple[PoseSequence, int, bpy.types.Scene, bpy.types.Strip] | None:
    """The found poses and which of them the sequencer's preview shows now, with the strip; None where it
    shows none."""
    edit = strips.sequencer_scene(context)
    for scene in bpy.data.scenes:
        video = scene.poseanything_video
        found = footage.find(video.strip) if video.poses is not None else None
        if found is None or found[0] != edit or not scene.poseanything_shown.video_poses:
            continue
        _, strip = found
        first, end = strips.span(strip)
        now = edit.frame_current_final
        if strip.mute or not first <= now < end:
            continue
        try:
            kept = kept_poses.read(video.poses)
        except ExportError:
            continue  # the panel says so
        index = index_in(strip, kept, now)
        if index is not None and 0 <= index < kept.found.pose.num_frames:
            return kept.found.pose, index, edit, strip
    return None


def _draw() -> None:
    context = bpy.context
    found = pose_at(context)
    if found is None:
        return
    pose, index, edit, strip = found
    points, _ = pose.frame_points(index)
    if not len(points):
        return
    flat = to_preview(strip, edit, (pose.width, pose.height))(points[:, :2].astype(float))
    view = context.region.view2d
    origin = np.array(view.view_to_region(0, 0, clip=False), float)
    unit = np.array(view.view_to_region(1000, 1000, clip=False), float)
    draw_part_strokes(pose, index, (flat * (unit - origin) / 1000 + origin).astype(np.float32), radius=2.0)


def register() -> None:
    global _handle
    _handle = bpy.types.SpaceSequenceEditor.draw_handler_add(_draw, (), "PREVIEW", "POST_PIXEL")


def unregister() -> None:
    global _handle
    bpy.types.SpaceSequenceEditor.draw_handler_remove(_handle, "PREVIEW")
    _handle = None
