"""Pointing at a subject: its picture fills an editor, and a click or a box says where it is."""

from __future__ import annotations

import blf
import bpy
import numpy as np
from bpy.props import BoolProperty, EnumProperty, FloatVectorProperty
from gpu_extras.batch import batch_for_shader

from .. import session
from ..errors import ExportError
from ..live.picture import make_texture
from ..operators.refusal import refuse
from ..operators.video import first_picture, set_pick
from ..texts import say
from ..texts.translation import shown, tell
from . import frame
from .frame import Box, builtin_shader

DARK = (0.0, 0.0, 0.0, 0.85)
LINE = (1.0, 0.6, 0.1, 1.0)
HINT = say("Click on the subject, or draw a box around it   Esc: Cancel")
DRAGGED = 6
"""Pixels that the mouse moves before a click becomes a box."""
MARGIN = 0.06
"""Around the picture, as a share of the region."""
_SPACES = {
    "VIEW_3D": "SpaceView3D",
    "SEQUENCE_EDITOR": "SpaceSequenceEditor",
    "IMAGE_EDITOR": "SpaceImageEditor",
}


def find_room(context) -> tuple[bpy.types.Area, bpy.types.Region] | None:
    """The region that shows the picture: the editor's own main one, the sequencer's preview, else the largest
    3D view."""
    areas = [area for area in context.screen.areas if area.type == "VIEW_3D"]
    areas.sort(key=lambda area: -area.width * area.height)
    for area in [context.area, *areas]:
        if area is None or area.type not in _SPACES:
            continue
        wanted = "PREVIEW" if area.type == "SEQUENCE_EDITOR" else "WINDOW"
        region = next((each for each in area.regions if each.type == wanted and each.width > 100), None)
        if region is not None and region.height > 100:
            return area, region
    return None


def picture_box(region_size: tuple[int, int], picture_size: tuple[int, int]) -> Box:
    """Where a picture lies in a region, as large as fits."""
    room = [side * (1 - 2 * MARGIN) for side in region_size]
    scale = min(room[0] / picture_size[0], room[1] / picture_size[1])
    width, height = (side * scale for side in picture_size)
    left, bottom = (region_size[0] - width) / 2, (region_size[1] - height) / 2
    return left, bottom, left + width, bottom + height


def as_fractions(place: tuple[float, float], box: Box) -> tuple[float, float]:
    """A place of the region as fractions of the picture, y down."""
    return (place[0] - box[0]) / (box[2] - box[0]), (box[3] - place[1]) / (box[3] - box[1])


class POSEANYTHING_OT_pick_subject(bpy.types.Operator):
    bl_idname = "poseanything.pick_subject"
    bl_label = "Pick Subject"
    bl_description = "See the first frame, and click on the subject or draw a box around it"
    bl_options = {"REGISTER", "UNDO"}

    of_picture: BoolProperty(
        name="Of Picture",
        description="Point at the subject of the picture that the clip begins with, not of the video",
        options={"HIDDEN", "SKIP_SAVE"},
    )
    kind: EnumProperty(
        name="By",
        items=(("CLICK", "Click", "A place on the subject"), ("BOX", "Box", "A box around the subject")),
        options={"SKIP_SAVE"},
    )
    at: FloatVectorProperty(
        name="At",
        description="x and y, or left, top, right and bottom, as fractions from the upper left corner",
        size=4,
        options={"SKIP_SAVE"},
    )

    def invoke(self, context, event):
        room = find_room(context)
        if room is None:
            self.report({"ERROR"}, tell("There is no room to show the picture; open a 3D view."))
            return {"CANCELLED"}
        try:
            pixels = first_picture(context, self.of_picture)
        except ExportError as error:
            return refuse(self, error)
        self._area, self._region = room
        rgba = np.ones((*pixels.shape[:2], 4), np.float32)
        rgba[..., :3] = pixels[::-1] / np.float32(255)
        self._pixels, self._texture = rgba, None
        self._begin = self._mouse = None
        self._space = getattr(bpy.types, _SPACES[self._area.type])
        self._handle = self._space.draw_handler_add(self._draw, (), self._region.type, "POST_PIXEL")
        context.window_manager.modal_handler_add(self)
        context.workspace.status_text_set(shown(HINT))
        context.window.cursor_modal_set("CROSSHAIR")
        self._area.tag_redraw()
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        place = event.mouse_x - self._region.x, event.mouse_y - self._region.y
        self._area.tag_redraw()
        if event.type in {"ESC", "RIGHTMOUSE"} and event.value == "PRESS":
            self._leave(context)
            return {"CANCELLED"}
        if event.type == "MOUSEMOVE":
            self._mouse = place
        elif event.type == "LEFTMOUSE" and event.value == "PRESS":
            self._begin = self._mouse = place
        elif event.type == "LEFTMOUSE" and event.value == "RELEASE" and self._begin is not None:
            self._read(place)
            found = self._set(context)
            self._begin = None
            if found:
                self._leave(context)
                return {"FINISHED"}
        return {"RUNNING_MODAL"}

    def execute(self, context):
        return {"FINISHED"} if self._set(context) else {"CANCELLED"}

    def _read(self, place: tuple[float, float]) -> None:
        box = self._box()
        begin, end = as_fractions(self._begin, box), as_fractions(place, box)
        if max(abs(a - b) for a, b in zip(self._begin, place)) < DRAGGED:
            self.kind, self.at = "CLICK", (*begin, 0, 0)
        else:
            (left, right), (top, bottom) = (sorted((a, b)) for a, b in zip(begin, end))
            inside = [min(max(side, 0.0), 1.0) for side in (left, top, right, bottom)]
            self.kind, self.at = "BOX", inside

    def _set(self, context) -> bool:
        at = tuple(self.at) if self.kind == "BOX" else tuple(self.at)[:2]
        if any(not 0 <= value <= 1 for value in at):
            self.report({"ERROR"}, tell("That is outside of the picture; point at the subject in it."))
            return False
        if self.kind == "BOX" and (at[0] >= at[2] or at[1] >= at[3]):
            self.report(
                {"ERROR"},
                tell("The box is empty, or lies outside of the picture; draw it around the subject."),
            )
            return False
        set_pick(context.scene, self.of_picture, self.kind, at)
        session.get().cured(type(self).bl_idname)
        return True

    def _box(self) -> Box:
        height, width = self._pixels.shape[:2]
        return picture_box((self._region.width, self._region.height), (width, height))

    def _draw(self) -> None:
        if bpy.context.region != self._region:
            return
        if self._texture is None:
            self._texture = make_texture(self._pixels)
        whole = 0, 0, self._region.width, self._region.height
        frame.fill([whole], DARK)
        frame.draw_picture(self._texture, self._box(), 1.0)
        blf.size(0, 13 * bpy.context.preferences.system.ui_scale)
        blf.color(0, 1.0, 1.0, 1.0, 1.0)
        blf.position(0, 20, 12, 0)
        blf.draw(0, shown(HINT))
        if self._begin is not None:
            (x, y), (u, v) = self._begin, self._mouse
            shader = builtin_shader("POLYLINE_UNIFORM_COLOR")
            shader.uniform_float("color", LINE)
            shader.uniform_float("lineWidth", 2.0)
            shader.uniform_float("viewportSize", (self._region.width, self._region.height))
            corners = [(x, y), (u, y), (u, v), (x, v), (x, y)]
            batch_for_shader(shader, "LINE_STRIP", {"pos": corners}).draw(shader)

    def _leave(self, context) -> None:
        self._space.draw_handler_remove(self._handle, self._region.type)
        context.workspace.status_text_set(None)
        context.window.cursor_modal_restore()
        self._area.tag_redraw()

    def cancel(self, context):
        self._leave(context)


register, unregister = bpy.utils.register_classes_factory((POSEANYTHING_OT_pick_subject,))
