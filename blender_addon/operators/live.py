"""Switch the live view on and off, and open it anew."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, StringProperty

from ..live import view
from ..live.opening import Opened, open_session
from .serving import await_server
from .stepped import RangeOperator


def steps(context, live: view.Live, known: Opened | None, interactive: bool):
    """Step by step: a live session, opened; the last value is what opens it."""
    yield from await_server(context)
    return (yield from open_session(context, context.scene.poseanything, known, interactive, live.camera))


class POSEANYTHING_OT_live(RangeOperator, bpy.types.Operator):
    bl_idname = "poseanything.live"
    bl_label = "Live"
    bl_description = (
        "Show the picture of the pose as it is now over the camera view, while you pose, scrub or play. Each "
        "3D view that has a camera of its own has a live view of its own"
    )
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context):
        return view.of(context).on or super().poll(context)

    def invoke(self, context, event):
        if view.of(context).on:
            return self.execute(context)
        return super().invoke(context, event)

    def execute(self, context):
        if view.of(context).on:
            view.of(context).end()
            return {"FINISHED"}
        return super().execute(context)

    def steps(self, context):
        self._live = view.of(context)
        return steps(context, self._live, None, self.interactive)

    def finish(self, context, opened):
        self._live.begin(opened)
        return {"FINISHED"}


class POSEANYTHING_OT_refresh_live(RangeOperator, bpy.types.Operator):
    bl_idname = "poseanything.refresh_live"
    bl_label = "Refresh"
    bl_description = (
        "Make the first frame that the live picture is drawn from anew, and choose its limbs anew"
    )
    bl_options = {"INTERNAL"}

    anew: BoolProperty(
        name="Anew", description="Make the first frame anew in any case", default=True, options={"SKIP_SAVE"}
    )
    camera: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context):
        return bool(view.all_on()) and super().poll(context)

    def steps(self, context):
        self._live = view.get(self.camera) if self.camera else view.of(context)
        return steps(context, self._live, None if self.anew else self._live.opened, self.interactive)

    def finish(self, context, opened):
        self._live.begin(opened)
        return {"FINISHED"}


class POSEANYTHING_OT_reset_alignment(bpy.types.Operator):
    bl_idname = "poseanything.reset_alignment"
    bl_label = "Reset Alignment"
    bl_description = "Lay the first frame's picture so that it covers the clip and lies in its middle"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        for name in ("picture_scale", "picture_x", "picture_y"):
            context.scene.poseanything.property_unset(name)
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (POSEANYTHING_OT_live, POSEANYTHING_OT_refresh_live, POSEANYTHING_OT_reset_alignment)
)
