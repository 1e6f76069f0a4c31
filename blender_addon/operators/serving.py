"""Waiting until a server answers that has the engine."""

from __future__ import annotations

import time
from collections.abc import Generator

import bpy

from .. import preferences, session
from ..buttons import (
    ALLOW_ONLINE_ACCESS,
    CHOOSE_HOME,
    OTHER_PORT,
    SHOW_LOG,
    SHOW_PREFERENCES,
    START_SERVER,
    USE_BEST,
    USE_THIS_COMPUTER,
    Button,
)
from ..connection import server
from ..connection.bridge import PATIENCE
from ..connection.events import CONNECTED, REFUSED
from ..connection.listener import find_listener
from ..connection.server import ServerError, is_taken, parse_server
from ..errors import ExportError
from ..request.export import ExportStep
from ..request.finding import Finding
from ..shared.address import Address
from ..shared.engines import EngineDescription
from ..texts import Headline, say

START_PATIENCE = 120.0
"""Seconds that a server started from here may take to start."""


def await_server(context) -> Generator[ExportStep, None, None]:
    """Reach the server, starting it where the user wants that. Blender is the user's meanwhile. Raises
    `ServerError` when none answers, `ExportError` when another scene is open at the end."""
    current, chosen = session.get(), context.scene.session_uid
    current.reach_server(context)
    bridge, began = current.bridge, time.monotonic()
    was_running = bridge.server.state == server.RUNNING
    while bridge.link.state != CONNECTED or not bridge.engines:
        if bridge.link.state == REFUSED:
            raise ServerError(bridge.link.sentence, *_refused_button(context))
        if bridge.server.state == server.FAILED:
            if not was_running:
                raise ServerError(bridge.server.sentence, *SHOW_LOG)
            was_running = False  # it had just ended, unnoticed: another may take its place
            current.reach_server(context)
        if bridge.client is None and not bridge.server.is_up:
            raise ServerError("The server was stopped; generate again.")
        starting = bridge.server.state == server.STARTING
        if time.monotonic() - began > (START_PATIENCE if starting else PATIENCE):
            raise _nobody_answers(bridge)
        yield ExportStep(
            0.0, say("Starting the server") if starting else say("Looking for the server"), waiting=True
        )
        current.poll()
    if context.scene.session_uid != chosen:
        raise ExportError("Another scene was opened while the server was awaited; generate again.")


def _nobody_answers(bridge) -> ServerError:
    if bridge.client is None:
        return ServerError(say("The server does not answer yet; see its log in the Server panel."), *SHOW_LOG)
    address = Address.parse(bridge.client.address)
    if address.is_loopback and is_taken(address):
        listener = find_listener(address.port)
        sentence = (
            say("What listens at {address} does not answer as a server does.", address=address)
            if listener is None
            else say(
                "{program} (process {pid}) listens at {address} and does not answer as a server does.",
                program=listener.name,
                pid=listener.pid,
                address=address,
            )
        )
        return ServerError(sentence, *OTHER_PORT)
    if address.is_loopback:
        return ServerError(
            say("No server answers at {address}; start it in the Server panel.", address=address),
            *START_SERVER,
        )
    return ServerError(
        say(
            "No server answers at {address}; start it on that computer with 'python build.py serve --address"
            " tcp://0.0.0.0:{port}', or choose an address on this computer.",
            address=address,
            port=address.port,
        ),
        *SHOW_PREFERENCES,
    )


def _refused_button(context) -> Button:
    """What helps against a server that can't be used: another one of this computer's, or another address."""
    return OTHER_PORT if is_here(context) else SHOW_PREFERENCES


def server_blockers(context) -> list[Finding]:
    """What keeps the server from generating, as far as it is known now."""
    prefs, bridge = preferences.get(context), session.get().bridge
    try:
        address, token = parse_server(preferences.server(context))
    except ServerError as error:
        return [Finding(Headline(str(error)), *error.button)]
    if bridge.link.state == REFUSED:
        return [Finding(bridge.link.sentence, *_refused_button(context))]
    if bridge.link.state == CONNECTED:
        return _engine_blockers(context, context.scene.poseanything.engine_name)
    if bridge.server.state == server.FAILED:
        return [Finding(bridge.server.sentence, *SHOW_LOG)]
    if not address.is_loopback:
        if not bpy.app.online_access:
            return [
                _allow_online_access(
                    say("Blender is set to stay offline, so {address} can't be used", address=address)
                ),
                _use_this_computer(say("A server on this computer needs no online access")),
            ]
        if session.get().looking:
            return []
        return [Finding(say("No server answers at {address} yet", address=address), *SHOW_PREFERENCES)]
    if token is not None or bridge.server.is_up or session.get().looking:
        return []
    if not preferences.server_folder(context):
        return [_choose_server_folder()]
    return [] if prefs.autostart else [Finding("No server answers", *START_SERVER)]


def _use_this_computer(sentence: str) -> Finding:
    return Finding(sentence, *USE_THIS_COMPUTER)


def _choose_server_folder() -> Finding:
    return Finding(
        "Choose the folder of PoseAnything Bridge's checkout, which holds the server", *CHOOSE_HOME
    )


def _allow_online_access(sentence: str) -> Finding:
    if bpy.app.online_access_override:  # started with --offline-mode, which no setting undoes
        return Finding(sentence)
    return Finding(sentence, *ALLOW_ONLINE_ACCESS)


def is_here(context) -> bool:
    """Whether the server runs, or would run, on this computer."""
    try:
        address, token = parse_server(preferences.server(context))
    except ServerError:
        return True  # starting says what is wrong with it
    return address.is_loopback and token is None


def weights_blockers(context, engine: EngineDescription) -> list[Finding]:
    """What keeps this Blender from fetching an engine's weights."""
    if not is_here(context):
        sentence = say(
            "The weights of {engine} are the server's: run 'python build.py weights' on its computer",
            engine=engine.short_label,
        )
        return [Finding(sentence)]
    if not bpy.app.online_access:
        sentence = say(
            "{engine} needs its weights, and Blender is set to stay offline",
            engine=engine.short_label,
        )
        return [_allow_online_access(sentence)]
    if not preferences.server_folder(context):
        return [_choose_server_folder()]
    return []


def _engine_blockers(context, name: str) -> list[Finding]:
    engines = session.get().engines
    chosen = session.get().engine(name) if name else None
    if chosen is not None and not chosen.ready and chosen.missing_weights:
        found = obstacle(context, chosen)
        if found.operator or session.get().weights.is_running:
            best = session.get().engine("")
            if best is None or not best.ready:
                return [found]
            return [found, Finding(say("{engine} is ready", engine=best.short_label), *USE_BEST)]
    if name and chosen is None:
        sentence = say("The server has no engine named {name}", name=name)
    elif chosen is not None and not chosen.ready:
        sentence = not_ready(chosen)
    elif engines and not any(engine.ready for engine in engines):
        return [obstacle(context, engine) for engine in engines]
    else:
        return []
    if not any(engine.ready for engine in engines):
        return [Finding(sentence)]
    return [Finding(sentence, *USE_BEST)]


def obstacle(context, engine: EngineDescription) -> Finding:
    """Why an engine can't be used, with the button that helps where its weights are all that it lacks."""
    if not engine.missing_weights or engine.reason.startswith(engine.label):
        return Finding(not_ready(engine))
    if blockers := weights_blockers(context, engine):
        return blockers[0]
    if session.get().weights.is_running:
        return Finding(say("The weights of {engine} are being fetched", engine=engine.short_label))
    sentence = say(
        "{engine} needs its weights: {size} are to be fetched",
        engine=engine.short_label,
        size=gigabytes(sum(part.bytes for part in engine.missing_weights)),
    )
    return Finding(sentence, "poseanything.get_weights", "Get the Weights", (("engine", engine.name),))


def gigabytes(size: int) -> str:
    """12.3 GB for 12345678900 bytes; of what is small as many megabytes."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def not_ready(engine: EngineDescription) -> str:
    """Why an engine can't be used, its name said once."""
    return (
        engine.reason
        if engine.reason.startswith(engine.label)
        else say("{engine} can't run: {reason}", engine=engine.label, reason=engine.reason)
    )


def usable_engine(name: str) -> EngineDescription:
    """An engine by name, "" for the best. Raises `ExportError` when it can't be used."""
    engine = session.get().engine(name)
    if engine is None:
        raise ExportError(
            say("The server has no {name} engine; choose another in the Engine panel.", name=name)
            if name
            else say("The server has no usable engine; choose another in the Engine panel."),
            *USE_BEST,
        )
    if not engine.ready:
        raise ExportError(not_ready(engine), *USE_BEST)
    return engine
