"""The server: whether it runs, what it has and what it lacks; shown in the sidebar and in the preferences."""

from __future__ import annotations

from .. import preferences, session
from ..buttons import OTHER_PORT, SHOW_PREFERENCES
from ..connection import server
from ..connection.bridge import Bridge
from ..connection.events import CONNECTED, REFUSED
from ..connection.jobs import duration
from ..connection.server import ServerError, parse_server
from ..connection.weights import FAILED, WeightsFetch
from ..operators.serving import gigabytes, is_here, obstacle
from ..operators.weights import draw_parts
from ..shared.engines import EngineDescription
from ..shared.fetching import CHECKING
from ..texts import Sentence, say
from ..texts.translation import shown, tell
from .progress import draw_button
from .text import is_wide, light, paragraph

LAMPS = {"CONNECTED": "green", "STARTING": "yellow", "LOOKING": "yellow", "REFUSED": "red", "OFF": "grey"}


def draw_server(layout, context) -> None:
    current, bridge = session.get(), session.get().bridge
    state = _state(context, bridge)
    row = layout.row() if is_wide(context) else layout.column()
    row.label(text=shown(_named(state)), icon=light(LAMPS[state]))
    row = row.row(align=True)
    if context.area is None or context.area.type != "PREFERENCES":
        where, _, values = SHOW_PREFERENCES
        row.operator(where, text="", icon="PREFERENCES").module = dict(values)["module"]
    if bridge.server.is_up:
        row.operator("poseanything.restart_server", text="", icon="FILE_REFRESH")
        row.operator("poseanything.stop_server", text="Stop", icon="QUIT")
    elif state in ("OFF", "LOOKING") and is_here(context):
        row.operator("poseanything.start_server", text="Start", text_ctxt="Operator", icon="PLAY")
    _draw_place(layout, context, bridge)
    if state == "CONNECTED":
        _draw_machine(layout, context, bridge)
        for engine in bridge.engines:
            _draw_engine(layout, context, engine)
    elif state == "REFUSED":
        paragraph(layout, context, bridge.link.sentence, "ERROR", alert=True)
        if is_here(context):
            layout.operator(OTHER_PORT.operator)
    if current.sentence:
        paragraph(layout, context, current.sentence, "ERROR", alert=True)
    if bridge.server.state == server.FAILED:
        paragraph(layout, context, bridge.server.sentence, "ERROR", alert=True)
        layout.operator("poseanything.show_server_log", icon="TEXT")


def _state(context, bridge: Bridge) -> str:
    if bridge.server.state == server.STARTING:
        return "STARTING"
    if bridge.link.state == CONNECTED:
        return "CONNECTED"
    if bridge.link.state == REFUSED:
        return "REFUSED"
    return "OFF" if is_here(context) else "LOOKING"


def _named(state: str) -> Sentence:
    return {
        "CONNECTED": say("Connected"),
        "STARTING": say("Starting"),
        "LOOKING": say("No Answer Yet"),
        "REFUSED": say("Can't Be Used"),
        "OFF": say("Not Running"),
    }[state]


def _draw_place(layout, context, bridge: Bridge) -> None:
    """Where the server is, and whether a token lets this Blender in."""
    try:
        address, token = parse_server(preferences.server(context))
    except ServerError:
        return  # said above Generate, with what helps
    column = layout.column(align=True)
    if is_here(context):
        where = bridge.server.address if bridge.server.is_up else address
        paragraph(column, context, say("This computer, {address}", address=where), "DESKTOP")
    else:
        paragraph(column, context, str(address), "URL")
    if token is not None:
        column.label(text="Let in by a token", icon="KEYINGSET")


def _draw_machine(layout, context, bridge: Bridge) -> None:
    """What the server runs on, and how much of its memory is in use."""
    column = layout.column(align=True)
    if bridge.device:
        paragraph(column, context, bridge.device, "MEMORY")
    for worker in bridge.workers:
        if worker.card_total:
            text = say(
                "{name}: {used} of {total} in use",
                name=worker.name,
                used=gigabytes(worker.card_used),
                total=gigabytes(worker.card_total),
            )
        elif worker.memory and len(bridge.workers) == 1:
            text = say("{used} of memory in use", used=gigabytes(worker.memory))
        elif worker.memory:
            text = say("{name}: {used} of memory in use", name=worker.name, used=gigabytes(worker.memory))
        else:
            continue
        paragraph(column, context, text, "BLANK1")


def _draw_engine(layout, context, engine: EngineDescription) -> None:
    column = layout.column(align=True)
    if engine.ready:
        paragraph(column, context, engine.label, "CHECKMARK")
    else:
        paragraph(column, context, obstacle(context, engine).sentence, "X")
    if not engine.missing_weights:
        return
    box = layout.box().column(align=True)
    draw_parts(box, engine, is_wide(context))
    fetch = session.get().weights
    if fetch.is_running:
        _draw_fetch(box, fetch)
        return
    if fetch.state == FAILED:
        paragraph(box, context, fetch.sentence, "ERROR", alert=True)
    found = obstacle(context, engine)
    if found.operator:
        draw_button(box, found, icon="IMPORT")


def _draw_fetch(layout, fetch: WeightsFetch) -> None:
    left = fetch.seconds_left
    done, total = gigabytes(fetch.done), gigabytes(fetch.total)
    if not fetch.total:
        text = tell("Asking for the weights")
    elif fetch.stage == CHECKING:
        text = tell("{done} of {total}, checking", done=done, total=total)
    elif left is None:
        text = tell("{done} of {total}", done=done, total=total)
    else:
        text = tell("{done} of {total}, {time} left", done=done, total=total, time=duration(left))
    row = layout.row(align=True)
    row.progress(factor=fetch.fraction, text=text)
    row.operator("poseanything.cancel_weights", text="", icon="X")
