"""What will be sent, seen before: skeleton, parts, crop, first frame and the chosen take, over the camera
view."""

from __future__ import annotations

import colorsys
from functools import cache
from pathlib import Path

import bpy
import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader

from ..errors import ExportError
from ..ground_truth.first_frame import Alignment
from ..live.follower import draw as draw_pose
from ..operators.video import first_file
from ..request import kept_poses, video
from ..request.build import first_frame_alignment
from ..sequencer import footage, strips, take_list
from ..shared.pose import PoseSequence
from ..shared.raster import LINE_WEIGHT
from ..takes.take import Take, TakeError, frame_name, read_take
from ..times import ClipTimes
from ..view import Fit, SceneCamera, fit
from ..view.projection import Projector
from . import frame, limbs
from .frame import Box, builtin_shader
from .textures import texture_of

WHITE, BLACK = (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 1.0)
SHADE = (0.0, 0.0, 0.0, 0.6)
BEFORE, AFTER = (1.0, 0.6, 0.6), (0.6, 1.0, 0.6)
"""Tints of the onion skin's pictures."""
FAINT = 0.4
"""How opaque those are beside the one of this frame."""

CORNERS = 18
"""Of the triangles that make a stroke."""

_handle: object | None = None
_take: tuple[str, Take | None] = ("", None)
_drawn: tuple[tuple, gpu.types.GPUBatch | None] = ((), None)


def _draw() -> None:
    context = bpy.context
    shown = context.scene.poseanything_shown
    wanted = shown.parts, shown.crop, shown.first_frame, shown.onion, shown.skeleton != "NONE"
    placing = shown.first_frame and context.scene.poseanything.pose_source == "VIDEO"
    if not any(wanted) or not context.space_data.overlay.show_overlays:
        return
    placed, whole = frame.clip_fit(context), frame.camera_box(context)
    if placed is None or whole is None:
        return
    box = frame.clip_box(whole, placed)
    with frame.region_pixels(context), frame.only_within(box):
        if shown.first_frame:
            _draw_first_frame(context, box, placed, shown.opacity)
        if shown.onion:
            _draw_onion(context, box, shown)
        if shown.skeleton == "ALONE":
            frame.fill([box], BLACK)
        if shown.skeleton != "NONE" or shown.parts or placing:
            _draw_skeleton(context, box, placed, shown.parts)
    if shown.crop:
        with frame.region_pixels(context):
            _draw_crop(whole, box)


def _draw_skeleton(context, box: Box, placed: Fit, by_part: bool) -> None:
    """The pose of this frame as it will be sent, in the weight in which the model is shown it. Where nothing
    has changed since the last redraw, what was drawn is drawn again."""
    global _drawn
    settings, camera = context.scene.poseanything, frame.looked_through(context)
    key = (
        box,
        placed,
        by_part,
        limbs.changes,
        context.scene.frame_current_final,
        context.scene.session_uid,
        camera.session_uid if camera is not None else 0,
        settings.pose_look,
        settings.subjects,
        _video_key(context.scene) if settings.pose_source == "VIDEO" else None,
    )
    if _drawn[0] != key:
        pose = current_pose(context, placed)
        _drawn = key, None if pose is None or not len(pose.points) else _batch(pose, box, placed, by_part)
    if _drawn[1] is not None:
        shader = builtin_shader("FLAT_COLOR" if by_part else "UNIFORM_COLOR")
        if not by_part:
            shader.uniform_float("color", WHITE)
        _drawn[1].draw(shader)


def _batch(pose: PoseSequence, box: Box, placed: Fit, by_part: bool) -> gpu.types.GPUBatch:
    scale = (box[2] - box[0]) / placed.width
    flat = (pose.points[:, :2] * (1, -1) * scale + (box[0], box[3])).astype(np.float32)
    radius = max(LINE_WEIGHT * max(placed.width, placed.height), 1.0) / 2 * scale
    return stroke_batch(flat, pose.lengths, radius, _colours(pose, pose.owners) if by_part else None)


def stroke_batch(
    flat: np.ndarray, lengths: np.ndarray, radius: float, colours: np.ndarray | None = None
) -> gpu.types.GPUBatch:
    """Polylines one after another, [N, 2] points in the region, as the model is shown them; in `colours`,
    [M, 4] of each polyline, or in the shader's one."""
    starts = np.delete(np.arange(len(flat)), np.cumsum(lengths) - 1)
    content = {"pos": _strokes(flat[starts], flat[starts + 1], radius)}
    if colours is not None:
        content["color"] = np.repeat(np.repeat(colours, lengths, axis=0)[starts], CORNERS, axis=0)
    shader = builtin_shader("FLAT_COLOR" if colours is not None else "UNIFORM_COLOR")
    return batch_for_shader(shader, "TRIS", content)


def _colours(pose: PoseSequence, owners: np.ndarray) -> np.ndarray:
    table = np.array([_colour(limb.part) for limb in pose.limbs], np.float32)
    return table[owners]


def draw_part_strokes(pose: PoseSequence, index: int, flat: np.ndarray, radius: float) -> None:
    """A frame's polylines, whose points lie at `flat` in the region, each part in a colour of its own."""
    owners = pose.owners[pose.offsets[index] : pose.offsets[index + 1]]
    stroke_batch(flat, pose.frame_points(index)[1], radius, _colours(pose, owners)).draw(
        builtin_shader("FLAT_COLOR")
    )


def _strokes(start: np.ndarray, end: np.ndarray, radius: float) -> np.ndarray:
    """[S * CORNERS, 2] the corners of the triangles that cover what lies within a radius, in the L1 norm, of
    strokes [S, 2], as `shared.raster` draws them: a diamond at each end, and what it sweeps between them."""
    level = (np.abs(end - start) @ [1, -1] >= 0)[:, None]
    out = np.where(level, [0, radius], [radius, 0])
    swept = [start - out, start + out, end + out, start - out, end + out, end - out]
    right, up = np.array([radius, 0]), np.array([0, radius])
    for tip in (start, end):
        swept += [tip - right, tip + up, tip + right, tip - right, tip + right, tip - up]
    return np.stack(swept, axis=1).reshape(-1, 2).astype(np.float32)


def current_pose(context, placed: Fit) -> PoseSequence | None:
    """The pose of the scene as it is evaluated now, seen by its camera, or of its video; None where there is
    none."""
    if context.scene.poseanything.pose_source == "VIDEO":
        return _video_pose(context.scene, placed)
    found = limbs.followed(context)
    if found is None:
        return None
    depsgraph = context.evaluated_depsgraph_get()
    projector = Projector([SceneCamera(frame.looked_through(context)).lens(context.scene, depsgraph)], placed)
    joints = found.sampler.sample(depsgraph)[None]
    return draw_pose(found.sampler, found.subjects, joints, projector, found.limbs, found.parts)


def _video_pose(scene: bpy.types.Scene, placed: Fit) -> PoseSequence | None:
    now = ClipTimes(scene.frame_current_final, 1, 1, 1)
    try:
        kept = video.poses_of(scene)
        size = kept.found.pose.width, kept.found.pose.height
        lain = video.place(size, placed.width, placed.height, video.alignment_of(scene.poseanything_video))
        return video.clip_pose(scene, kept, now, lain, placed.width, placed.height)[0]
    except ExportError:
        return None  # there is none at this frame, or the panel says what is wrong


def _video_key(scene: bpy.types.Scene) -> tuple:
    """What the poses of a video are drawn by."""
    kept, found = scene.poseanything_video, footage.find(scene.poseanything_video.strip)
    strip = (strips.content_start(found[1]), footage.Clock.of(found[1])) if found is not None else None
    text = kept.poses
    return kept.scale, kept.x, kept.y, text and text.get(kept_poses.VERSION), strip


@cache
def _colour(part: int) -> tuple[float, float, float, float]:
    """Far apart for parts whose numbers are near."""
    return (*colorsys.hsv_to_rgb(part * 0.618034 % 1, 0.75, 1.0), 1.0)


def picture_box(box: Box, placed: Fit, size: tuple[int, int], alignment: Alignment) -> Box:
    """Where in the region a picture of a size in pixels lies under the clip's `box`."""
    scale = (box[2] - box[0]) / placed.width
    left, top, width, height = alignment.box(fit(*size, placed.width, placed.height))
    x, y = box[0] + left * scale, box[3] - top * scale
    return x, y - height * scale, x + width * scale, y


def _draw_first_frame(context, box: Box, placed: Fit, opacity: float) -> None:
    settings = context.scene.poseanything
    if settings.first_frame_source == "VIDEO":
        path = str(first_file(context.scene))
    elif settings.first_frame_source == "PICTURE" and settings.first_frame_path:
        path = bpy.path.abspath(settings.first_frame_path)
    else:
        return
    texture = texture_of(path)
    if texture is not None:
        size, lain = (texture.width, texture.height), first_frame_alignment(context.scene, settings)
        frame.draw_picture(texture, picture_box(box, placed, size, lain), opacity)


def _draw_onion(context, box: Box, shown) -> None:
    """The chosen take's pictures before, after and at this frame."""
    global _take
    item = take_list.active_item(context)
    if item is None:
        return
    folder = str(take_list.folder_of(item))
    if _take[0] != folder or _take[1] is None:
        try:
            _take = folder, read_take(Path(folder))
        except TakeError:
            _take = folder, None
            return
    take, distance = _take[1], shown.onion_distance
    now = context.scene.frame_current_final
    for offset, tint in ((0, WHITE[:3]), (-distance, BEFORE), (distance, AFTER)):
        index = take.times.index_at(now + offset)
        if 0 <= index < item.frames:
            texture = texture_of(str(take.folder / frame_name(take.name, index)))
            if texture is not None:
                frame.draw_picture(texture, box, shown.opacity * (FAINT if offset else 1.0), tint)


def _draw_crop(whole: Box, box: Box) -> None:
    left, bottom, right, top = box
    around = [
        (whole[0], whole[1], left, whole[3]),
        (right, whole[1], whole[2], whole[3]),
        (left, whole[1], right, bottom),
        (left, top, right, whole[3]),
    ]
    frame.fill([one for one in around if one[2] - one[0] > 0.5 and one[3] - one[1] > 0.5], SHADE)
    shader = builtin_shader("UNIFORM_COLOR")
    shader.uniform_float("color", WHITE)
    corners = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
    batch_for_shader(shader, "LINE_STRIP", {"pos": corners}).draw(shader)


def register() -> None:
    global _handle
    _handle = bpy.types.SpaceView3D.draw_handler_add(_draw, (), "WINDOW", "POST_VIEW")


def unregister() -> None:
    global _handle, _take, _drawn
    bpy.types.SpaceView3D.draw_handler_remove(_handle, "WINDOW")
    _handle, _take, _drawn = None, ("", None), ((), None)
