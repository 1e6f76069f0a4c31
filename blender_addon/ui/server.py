"""The server's lamp, name and buttons; shown in the sidebar and in the preferences."""

from __future__ import annotations

from .. import session
from ..connection import server
from ..connection.client import CONNECTED, REFUSED
from ..operators.serving import not_ready
from .text import light, paragraph


def draw_server(layout, context) -> None:
    current, bridge = session.get(), session.get().bridge
    state, link = bridge.server.state, bridge.link
    row = layout.row()
    if link.state == CONNECTED:
        row.label(text="Connected", icon=light("green"))
    elif state == server.STARTING:
        row.label(text="Starting", icon=light("yellow"))
    elif link.state == REFUSED:
        row.label(text="Can't be used", icon=light("red"))
    else:
        row.label(text="Not running", icon=light("grey"))
    if bridge.server.is_up:
        row.operator("poseanything.stop_server", text="Stop", icon="PAUSE")
    elif link.state != CONNECTED:
        row.operator("poseanything.start_server", text="Start", icon="PLAY")
    if link.state == CONNECTED:
        _draw_engines(layout, context, bridge)
    elif link.state == REFUSED:
        paragraph(layout, context, link.sentence, "ERROR", alert=True)
    if current.sentence:
        paragraph(layout, context, current.sentence, "ERROR", alert=True)
    if state == server.FAILED:
        paragraph(layout, context, bridge.server.sentence, "ERROR", alert=True)
        layout.operator("poseanything.show_server_log", icon="TEXT")


def _draw_engines(layout, context, bridge) -> None:
    column = layout.column(align=True)
    if bridge.device:
        column.label(text=bridge.device, icon="BLANK1")
    for engine in bridge.engines:
        if engine.ready:
            column.label(text=engine.label, icon="CHECKMARK")
        else:
            paragraph(column, context, not_ready(engine), "X")
