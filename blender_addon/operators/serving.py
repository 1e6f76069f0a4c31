"""Waiting until a server answers that has the engine."""

from __future__ import annotations

import time
from collections.abc import Generator

from .. import session
from ..connection import server
from ..connection.bridge import PATIENCE
from ..connection.client import CONNECTED, REFUSED
from ..connection.server import ServerError
from ..errors import ExportError
from ..request.export import ExportStep
from ..shared.address import Address
from ..shared.engines import EngineDescription

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
            raise ServerError(bridge.link.sentence)
        if bridge.server.state == server.FAILED:
            if not was_running:
                raise ServerError(bridge.server.sentence)
            was_running = False  # it had just ended, unnoticed: another may take its place
            current.reach_server(context)
        if bridge.client is None and not bridge.server.is_up:
            raise ServerError("The server was stopped; generate again.")
        starting = bridge.server.state == server.STARTING
        if time.monotonic() - began > (START_PATIENCE if starting else PATIENCE):
            raise ServerError(_nobody_answers(bridge))
        yield ExportStep(0.0, "Starting the server" if starting else "Looking for the server", waiting=True)
        current.poll()
    if context.scene.session_uid != chosen:
        raise ExportError("Another scene was opened while the server was awaited; generate again.")


def _nobody_answers(bridge) -> str:
    if bridge.client is None:
        return "The server does not answer yet; see its log in the Server panel."
    address = bridge.client.address
    if Address.parse(address).is_loopback:
        return f"No server answers at {address}; start it in the Server panel."
    return (
        f"No server answers at {address}; start it on that computer with 'python build.py serve --address "
        f"tcp://0.0.0.0:{Address.parse(address).port} --allow-remote', or choose an address on this computer."
    )


def usable_engine(name: str) -> EngineDescription:
    """An engine by name, "" for the best. Raises `ExportError` when it can't be used."""
    engine = session.get().engine(name)
    if engine is None:
        raise ExportError(f"The server has no {name or 'usable'} engine; choose another in the Engine panel.")
    if not engine.ready:
        raise ExportError(f"{engine.label} can't run: {engine.reason}")
    return engine
