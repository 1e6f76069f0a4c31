"""Handles in the camera view that lay the first frame's picture under the limbs, or a video's poses over the
first frame's subject: one moves them, those at corners scale them about their middle."""

from __future__ import annotations

from dataclasses import dataclass

import bpy
from gpu_extras.batch import batch_for_shader

from ..errors import ExportError
from ..ground_truth.first_frame import Alignment
from ..request import video
from ..request.build import alignment_of
from ..request.range import frame_range
from ..request.video import scaled_about
from ..request.video_time import shown_index
from ..view import Fit
from . import frame
from .frame import builtin_shader
from .overlay import picture_box
from .textures import texture_of

SIZE, REACH = 6.0, 12.0
"""Half the side of a handle, and how far from its middle it can be grabbed, in pixels."""
IDLE, HOVERED, EDGE = (0.9, 0.9, 0.9, 1.0), (1.0, 0.6, 0.1, 1.0), (0.0, 0.0, 0.0, 1.0)
OF_POSES = (0.4, 0.8, 1.0, 1.0)


@dataclass(frozen=True)
class Grip:
    """How what is laid on the clip lay when a handle was grabbed, and where the mouse was; `middle` and
    `size` are the clip's in the region. `about`: the place of the clip that stays where it is when a corner
    is dragged, as fractions from its lower left; the picture's own middle by default."""

    alignment: Alignment
    mouse: tuple[float, float]
    middle: tuple[float, float]
    size: tuple[float, float]
    about: tuple[float, float] | None = None

    def dragged(self, mouse: tuple[float, float], scales: bool, fine: bool) -> Alignment:
        """The alignment after a drag. A corner stays at its distance from the place that stays."""
        across, up = mouse[0] - self.mouse[0], mouse[1] - self.mouse[1]
        share = 0.1 if fine else 1.0
        old = self.alignment
        if not scales:
            return Alignment(
                old.scale, old.x + share * across / self.size[0], old.y + share * up / self.size[1]
            )
        about = self.about or (0.5 + old.x, 0.5 + old.y)
        centre = tuple(m + (a - 0.5) * side for m, a, side in zip(self.middle, about, self.size))
        before = ((self.mouse[0] - centre[0]) ** 2 + (self.mouse[1] - centre[1]) ** 2) ** 0.5
        after = ((mouse[0] - centre[0]) ** 2 + (mouse[1] - centre[1]) ** 2) ** 0.5
        grown = old.scale * (1 + share * (after / max(before, 1.0) - 1))
        return scaled_about(old, grown, *about)


class _Handle:
    """Base of handles: Blender forgets the class of a gizmo that another one is derived from."""

    __slots__ = ()

    def setup(self):
        self.place, self.scales, self.grip = (-100.0, -100.0), False, None

    def draw(self, context):
        x, y = self.place
        shader = builtin_shader("UNIFORM_COLOR")
        for colour, half in ((EDGE, SIZE + 1), (HOVERED if self.is_highlight else self.idle, SIZE)):
            shader.uniform_float("color", colour)
            corners = [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
            batch_for_shader(shader, "TRI_FAN", {"pos": corners}).draw(shader)

    def test_select(self, context, location):
        away = max(abs(location[0] - self.place[0]), abs(location[1] - self.place[1]))
        return 0 if away <= REACH else -1

    def invoke(self, context, event):
        placed = frame.clip_fit(context)
        box = frame.box_of(context, placed)
        if box is None:
            return {"CANCELLED"}
        self.grip = Grip(
            self._alignment(context),
            (event.mouse_region_x, event.mouse_region_y),
            ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2),
            (box[2] - box[0], box[3] - box[1]),
            self._about(context, placed),
        )
        return {"RUNNING_MODAL"}

    def modal(self, context, event, tweak):
        mouse = event.mouse_region_x, event.mouse_region_y
        self._set(context, self.grip.dragged(mouse, self.scales, "PRECISE" in tweak))
        context.area.tag_redraw()
        return {"RUNNING_MODAL"}

    def exit(self, context, cancel):
        if cancel:
            self._set(context, self.grip.alignment)
        else:
            bpy.ops.ed.undo_push(message=self.undo_message)
        context.area.tag_redraw()


class POSEANYTHING_GT_alignment_handle(_Handle, bpy.types.Gizmo):
    bl_idname = "POSEANYTHING_GT_alignment_handle"
    __slots__ = ("place", "scales", "grip")
    undo_message, idle = "Align First Frame", IDLE

    @staticmethod
    def _alignment(context) -> Alignment:
        return alignment_of(context.scene.poseanything)

    @staticmethod
    def _about(context, placed: Fit) -> tuple[float, float] | None:
        return None

    @staticmethod
    def _set(context, alignment: Alignment) -> None:
        settings = context.scene.poseanything
        settings.picture_scale = alignment.scale
        settings.picture_x, settings.picture_y = alignment.x, alignment.y


class _Handles:
    """Base of groups of `count` handles of a kind: the first moves, the others scale."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "WINDOW"
    bl_options = {"PERSISTENT"}
    kind, count = "", 0

    def setup(self, context):
        self._handles = []
        for _ in range(self.count):
            handle = self.gizmos.new(self.kind)
            handle.use_draw_modal = True
            handle.scales = bool(self._handles)
            self._handles.append(handle)

    def put(self, context, places) -> None:
        """Lay the handles at places in the region; one that lies outside is reached at the region's edge."""
        width, height = context.region.width, context.region.height
        for handle, (x, y) in zip(self._handles, places, strict=True):
            handle.place = min(max(x, 2 * SIZE), width - 2 * SIZE), min(max(y, 2 * SIZE), height - 2 * SIZE)


class POSEANYTHING_GGT_alignment(_Handles, bpy.types.GizmoGroup):
    bl_idname = "POSEANYTHING_GGT_alignment"
    bl_label = "First Frame's Alignment"
    kind, count = POSEANYTHING_GT_alignment_handle.bl_idname, 5

    @classmethod
    def poll(cls, context):
        settings = context.scene.poseanything
        return (
            context.scene.poseanything_shown.first_frame
            and settings.first_frame_source == "PICTURE"
            and frame.camera_box(context) is not None
            and texture_of(bpy.path.abspath(settings.first_frame_path)) is not None
        )

    def draw_prepare(self, context):
        settings, placed = context.scene.poseanything, frame.clip_fit(context)
        box = frame.box_of(context, placed)
        texture = texture_of(bpy.path.abspath(settings.first_frame_path))
        if box is None or texture is None:
            return
        size = texture.width, texture.height
        left, bottom, right, top = picture_box(box, placed, size, alignment_of(settings))
        middle = (left + right) / 2, (bottom + top) / 2
        self.put(context, (middle, (left, bottom), (right, bottom), (right, top), (left, top)))


class POSEANYTHING_GT_pose_handle(_Handle, bpy.types.Gizmo):
    bl_idname = "POSEANYTHING_GT_pose_handle"
    __slots__ = ("place", "scales", "grip")
    undo_message, idle = "Place Poses", OF_POSES

    @staticmethod
    def _alignment(context) -> Alignment:
        return video.alignment_of(context.scene.poseanything_video)

    @staticmethod
    def _about(context, placed: Fit) -> tuple[float, float] | None:
        left, bottom, right, top = _subject(context.scene, placed) or (0, 0, 1, 1)
        return (left + right) / 2, (bottom + top) / 2

    @staticmethod
    def _set(context, alignment: Alignment) -> None:
        lain = context.scene.poseanything_video
        lain.scale, lain.x, lain.y = alignment.scale, alignment.x, alignment.y


def _subject(scene: bpy.types.Scene, placed: Fit) -> tuple[float, float, float, float] | None:
    """Left, bottom, right and top of the filmed subject in the clip's first frame, as fractions of the clip
    from its lower left; None where there is none."""
    try:
        kept = video.poses_of(scene)
        index = shown_index(scene, kept, frame_range(scene, scene.poseanything)[0])
    except ExportError:
        return None
    if index is None:
        return None
    mask = video.first_mask(kept.found, max(index, 0))
    if not mask.any():
        return None
    size = kept.found.pose.width, kept.found.pose.height
    lain = video.place(size, placed.width, placed.height, video.alignment_of(scene.poseanything_video))
    left, top, right, bottom = video.subject_box(mask)
    x, y, width, height = lain.box
    across, down = (x / placed.width, width / placed.width), (y / placed.height, height / placed.height)
    return (
        across[0] + left * across[1],
        1 - down[0] - bottom * down[1],
        across[0] + right * across[1],
        1 - down[0] - top * down[1],
    )


class POSEANYTHING_GGT_poses(_Handles, bpy.types.GizmoGroup):
    """Two handles: the subject's middle moves the poses, its upper right corner scales them."""

    bl_idname = "POSEANYTHING_GGT_poses"
    bl_label = "Poses' Alignment"
    kind, count = POSEANYTHING_GT_pose_handle.bl_idname, 2

    @classmethod
    def poll(cls, context):
        return (
            context.scene.poseanything_shown.first_frame
            and context.scene.poseanything.pose_source == "VIDEO"
            and context.scene.poseanything_video.poses is not None
            and frame.camera_box(context) is not None
        )

    def draw_prepare(self, context):
        placed = frame.clip_fit(context)
        box = frame.box_of(context, placed)
        subject = None if box is None else _subject(context.scene, placed)
        if subject is None:
            return
        left, bottom, right, top = subject
        self.put(
            context,
            [
                (box[0] + x * (box[2] - box[0]), box[1] + y * (box[3] - box[1]))
                for x, y in (((left + right) / 2, (bottom + top) / 2), (right, top))
            ],
        )


register, unregister = bpy.utils.register_classes_factory(
    (
        POSEANYTHING_GT_alignment_handle,
        POSEANYTHING_GGT_alignment,
        POSEANYTHING_GT_pose_handle,
        POSEANYTHING_GGT_poses,
    )
)
