"""Get an engine's weights, which the server's own command fetches."""

from __future__ import annotations

import bpy
from bpy.props import StringProperty

from .. import preferences, session
from ..connection.server import ServerError
from ..connection.weights import free_space
from ..shared.engines import EngineDescription
from ..texts.translation import shown, tell
from .refusal import refuse
from .serving import gigabytes, weights_blockers

WIDTH = 420
"""Of the dialog, in pixels before scaling."""


def draw_parts(layout, engine: EngineDescription, wide: bool = True) -> None:
    """Each part of an engine's weights: whether it is there, how large it is, under which licence; the
    licence beside the rest where there is room."""
    for part in engine.weights:
        row = layout.split(factor=0.67) if wide else layout.column(align=True)
        row.label(
            text=tell("{part}, {size:.0f} GB", part=shown(part.label), size=part.bytes / 1e9),
            icon="CHECKMARK" if part.present else "X",
        )
        button = row.operator("wm.url_open", text=part.licence or tell("License?"), translate=False)
        button.url = part.page


class POSEANYTHING_OT_get_weights(bpy.types.Operator):
    bl_idname = "poseanything.get_weights"
    bl_label = "Get the Weights"
    bl_description = (
        "Fetch what is missing of the engine's weights into the server's folder for them. What has come is "
        "kept when it is cancelled, and the next time goes on from there"
    )
    bl_options = {"INTERNAL"}

    engine: StringProperty(name="Engine", options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context):
        if session.get().weights.is_running:
            cls.poll_message_set("Weights are being fetched")
            return False
        return True

    def invoke(self, context, event):
        if self._described is None or weights_blockers(context, self._described):
            return self.execute(context)
        return context.window_manager.invoke_props_dialog(self, width=WIDTH, confirm_text="Get the Weights")

    def draw(self, context):
        engine = self._described
        needed, free = sum(part.bytes for part in engine.missing_weights), free_space(engine.weights_folder)
        draw_parts(self.layout.column(align=True), engine)
        column = self.layout.column(align=True)
        column.label(text=engine.weights_folder, icon="FILE_FOLDER", translate=False)
        column.alert = free < needed
        column.label(
            text=tell(
                "{needed} to fetch at most, {free} are free", needed=gigabytes(needed), free=gigabytes(free)
            ),
            icon="ERROR" if free < needed else "BLANK1",
        )

    def execute(self, context):
        engine, prefs = self._described, preferences.get(context)
        if engine is None or not engine.missing_weights:
            self.report({"ERROR"}, tell("This engine has no weights to fetch."))
            return {"CANCELLED"}
        if blockers := weights_blockers(context, engine):
            return refuse(self, ServerError(blockers[0].sentence, *blockers[0].button))
        try:
            session.get().weights.start(
                preferences.server_folder(context),
                bpy.path.abspath(prefs.server_python),
                engine.weights_folder,
            )
        except ServerError as error:
            return refuse(self, error)
        return {"FINISHED"}

    @property
    def _described(self) -> EngineDescription | None:
        return session.get().engine(self.engine) if self.engine else None


class POSEANYTHING_OT_cancel_weights(bpy.types.Operator):
    bl_idname = "poseanything.cancel_weights"
    bl_label = "Cancel Fetching"
    bl_description = "Stop fetching weights. What has come is kept; the next time goes on from there"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context):
        return session.get().weights.is_running

    def execute(self, context):
        session.get().weights.cancel()
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (POSEANYTHING_OT_get_weights, POSEANYTHING_OT_cancel_weights)
)
