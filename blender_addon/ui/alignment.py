"""Handles in the camera view that lay the first frame's picture under the limbs: one moves it, those at its
corners scale it about the clip's middle."""

from __future__ import annotations

from dataclasses import dataclass

import bpy
from gpu_extras.batch import batch_for_shader

from ..ground_truth.first_frame import Alignment
from ..request.build import alignment_of
from . import frame
from .frame import builtin_shader
from .overlay import picture_box
from .textures import texture_of

SIZE, REACH = 6.0, 12.0
"""Half the side of a handle, and how far from its middle it can be grabbed, in pixels."""
IDLE, HOVERED, EDGE = (0.9, 0.9, 0.9, 1.0), (1.0, 0.6, 0.1, 1.0), (0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Grip:
    """How the picture lay when a handle was grabbed, and where the mouse was; `middle` and `size` are the
    clip's in the region."""

    alignment: Alignment
    mouse: tuple[float, float]
    middle: tuple[float, float]
    size: tuple[float, float]

    def dragged(self, mouse: tuple[float, float], scales: bool, fine: bool) -> Alignment:
        """The alignment after a drag. A corner stays at its distance from the picture's own middle."""
        across, up = mouse[0] - self.mouse[0], mouse[1] - self.mouse[1]
        share = 0.1 if fine else 1.0
        old = self.alignment
        if not scales:
            return Alignment(
                old.scale, old.x + share * across / self.size[0], old.y + share * up / self.size[1]
            )
        centre = self.middle[0] + old.x * self.size[0], self.middle[1] + old.y * self.size[1]
        before = ((self.mouse[0] - centre[0]) ** 2 + (self.mouse[1] - centre[1]) ** 2) ** 0.5
        after = ((mouse[0] - centre[0]) ** 2 + (mouse[1] - centre[1]) ** 2) ** 0.5
        grown = old.scale * (1 + share * (after / max(before, 1.0) - 1))
        return Alignment(min(max(grown, 0.05), 20.0), old.x, old.y)


class POSEANYTHING_GT_alignment_handle(bpy.types.Gizmo):
    bl_idname = "POSEANYTHING_GT_alignment_handle"
    __slots__ = ("place", "scales", "grip")

    def setup(self):
        self.place, self.scales, self.grip = (-100.0, -100.0), False, None

    def draw(self, context):
        x, y = self.place
        shader = builtin_shader("UNIFORM_COLOR")
        for colour, half in ((EDGE, SIZE + 1), (HOVERED if self.is_highlight else IDLE, SIZE)):
            shader.uniform_float("color", colour)
            corners = [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
            batch_for_shader(shader, "TRI_FAN", {"pos": corners}).draw(shader)

    def test_select(self, context, location):
        away = max(abs(location[0] - self.place[0]), abs(location[1] - self.place[1]))
        return 0 if away <= REACH else -1

    def invoke(self, context, event):
        box = frame.box_of(context, frame.clip_fit(context))
        if box is None:
            return {"CANCELLED"}
        self.grip = Grip(
            alignment_of(context.scene.poseanything),
            (event.mouse_region_x, event.mouse_region_y),
            ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2),
            (box[2] - box[0], box[3] - box[1]),
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
            bpy.ops.ed.undo_push(message="Align First Frame")
        context.area.tag_redraw()

    @staticmethod
    def _set(context, alignment: Alignment) -> None:
        settings = context.scene.poseanything
        settings.picture_scale = alignment.scale
        settings.picture_x, settings.picture_y = alignment.x, alignment.y


class POSEANYTHING_GGT_alignment(bpy.types.GizmoGroup):
    bl_idname = "POSEANYTHING_GGT_alignment"
    bl_label = "First Frame's Alignment"
    bl_space_type = "VIEW_3D"
    bl_region_type = "WINDOW"
    bl_options = {"PERSISTENT"}

    @classmethod
    def poll(cls, context):
        settings = context.scene.poseanything
        return (
            context.scene.poseanything_shown.first_frame
            and settings.first_frame_source == "PICTURE"
            and frame.camera_box(context) is not None
            and texture_of(bpy.path.abspath(settings.first_frame_path)) is not None
        )

    def setup(self, context):
        self._handles = []
        for _ in range(5):
            handle = self.gizmos.new(POSEANYTHING_GT_alignment_handle.bl_idname)
            handle.use_draw_modal = True
            handle.scales = bool(self._handles)
            self._handles.append(handle)

    def draw_prepare(self, context):
        settings, placed = context.scene.poseanything, frame.clip_fit(context)
        box = frame.box_of(context, placed)
        texture = texture_of(bpy.path.abspath(settings.first_frame_path))
        if box is None or texture is None:
            return
        size = texture.width, texture.height
        left, bottom, right, top = picture_box(box, placed, size, alignment_of(settings))
        middle = (left + right) / 2, (bottom + top) / 2
        corners = (left, bottom), (right, bottom), (right, top), (left, top)
        # A corner that lies outside is reached at the region's edge.
        width, height = context.region.width, context.region.height
        for handle, (x, y) in zip(self._handles, (middle, *corners)):
            handle.place = min(max(x, 2 * SIZE), width - 2 * SIZE), min(max(y, 2 * SIZE), height - 2 * SIZE)


register, unregister = bpy.utils.register_classes_factory(
    (POSEANYTHING_GT_alignment_handle, POSEANYTHING_GGT_alignment)
)
