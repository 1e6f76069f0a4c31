"""Live sessions as the broker sees them: a process of their own draws them, begun with the first.

A pose is handed on at once, and of what its client does not take yet only the latest picture is kept. In the
process a session has a name of the broker's own, as two clients may choose the same one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count

import zmq

from shared import wire
from shared.engines import EngineDescription
from shared.messages import (
    LIVE_ANSWERS,
    LiveClose,
    LiveEnded,
    LiveOpen,
    LivePicture,
    LivePose,
    Welcome,
)
from shared.schema import MessageError
from shared.sentences import say

from .frontend import Client, Frontend
from .limits import Refusal, check_live
from .process import CANT_START, WorkerProcess, explain_exit
from .settings import Settings

log = logging.getLogger(__name__)

MAX_SESSIONS = 32
MAX_SESSIONS_PER_CLIENT = 8
KEEP_PROCESS = 60.0
"""Seconds for which the process waits for another session once the last is closed."""
MESSAGES_PER_TURN = 20


@dataclass(eq=False)
class _Session:
    client: Client
    name: str


class LiveDesk:
    """Every client's live sessions. `socket` is what the process's messages come from, None while there is no
    process."""

    def __init__(
        self,
        context: zmq.Context,
        settings: Settings,
        folder: str,
        on_exit: Callable[[], None],
        frontend: Frontend,
    ):
        self._context, self._settings, self._folder, self._on_exit = context, settings, folder, on_exit
        self._frontend = frontend
        self._sessions: dict[str, _Session] = {}
        self._keys: dict[tuple[bytes, str], str] = {}
        self._numbers = count(1)
        self._process: WorkerProcess | None = None
        self._unsent: list[LiveOpen] = []
        self._used = 0.0

    @property
    def socket(self) -> zmq.Socket | None:
        return self._process.socket if self._process else None

    def open(self, client: Client, message: LiveOpen, engines: Mapping[str, EngineDescription]) -> None:
        self.close(client, message.session)
        mine = sum(session.client.user == client.user for session in self._sessions.values())
        try:
            check_live(message.request, engines)
            if mine >= MAX_SESSIONS_PER_CLIENT or len(self._sessions) >= MAX_SESSIONS:
                raise Refusal("The server has as many live views as it can draw; switch one off.", "full")
            if self._process is None:
                self._process = WorkerProcess(
                    self._context, self._settings.engines, self._folder, self._on_exit, {}, live=True
                )
        except Refusal as error:
            self.refuse(client, message.session, error.code, str(error))
            return
        except CANT_START as error:
            log.error("The process for live sessions can't be started (%s)", error)
            reason = say("The server can't start a process for live pictures; see the server's log.")
            self.refuse(client, message.session, "worker", reason)
            return
        key = str(next(self._numbers))
        self._sessions[key] = _Session(client, message.session)
        self._keys[client.identity, message.session] = key
        self._unsent.append(replace(message, session=key))
        self._send_openings()
        log.info("Client %s opened live session %s by %s", client, key, message.request.engine)

    def _send_openings(self) -> None:
        """Before the process has reported it would not get them."""
        if self._process and self._process.reported:
            for message in self._unsent:
                self._process.send(wire.encode(message))
            self._unsent.clear()

    def pose(self, client: Client, message: LivePose) -> None:
        """Hand on a pose; of a session that is unknown its client is told."""
        key = self._keys.get((client.identity, message.session))
        if key is None:
            reason = say("The server does not have this live view any more; switch it on again.")
            self.refuse(client, message.session, "unknown", reason)
        elif self._process and self._process.reported:
            self._process.send(wire.encode(replace(message, session=key)))

    def close(self, client: Client, name: str) -> None:
        """Free a session; nothing happens where there is none."""
        key = self._keys.pop((client.identity, name), None)
        if key is not None:
            self._drop(key)

    def lose(self, client: Client) -> None:
        """Free all sessions of a client that is gone."""
        for (identity, _), key in list(self._keys.items()):
            if identity == client.identity:
                self._drop(key)

    def _drop(self, key: str) -> None:
        session = self._sessions.pop(key, None)
        if session is not None:
            self._keys.pop((session.client.identity, session.name), None)
            self._frontend.discard(session.client, _outbox(session.name))
            self._unsent = [message for message in self._unsent if message.session != key]
            if self._process and self._process.reported:
                self._process.send(wire.encode(LiveClose(session=key)))
            self._used = time.monotonic()

    def refuse(self, client: Client, name: str, code: str, reason: str) -> None:
        ended = LiveEnded(session=name, code=code, message=reason)
        self._frontend.forward(client, wire.encode(ended), _outbox(name), keep=False)

    def hear(self, now: float) -> None:
        """Pass on what the process has made."""
        for _ in range(MESSAGES_PER_TURN):
            if self._process is None or (parts := self._process.receive(now)) is None:
                return
            try:
                message = wire.decode([part.buffer for part in parts], (Welcome, *LIVE_ANSWERS))
            except MessageError as error:
                log.error("The process for live sessions sent a malformed message (%s); ending it", error)
                self._process.kill()
                return
            if isinstance(message, Welcome):
                self._process.reported = True
                self._send_openings()
            elif (session := self._sessions.get(message.session)) is not None:
                self._answer(session, message)

    def _answer(self, session: _Session, message: LivePicture | LiveEnded) -> None:
        key, client = message.session, session.client
        if isinstance(message, LivePicture):
            self._frontend.discard(client, _outbox(session.name))
        if isinstance(message, LiveEnded):
            self._drop(key)
        parts = wire.encode(replace(message, session=session.name))
        self._frontend.forward(
            client, parts, _outbox(session.name), keep=not isinstance(message, LivePicture)
        )

    def look_after(self, now: float) -> None:
        """See that the process lives while it is needed, and no longer."""
        process = self._process
        if process is None:
            return
        if process.exit_code is not None:
            self.hear(now)  # its last words
            self._bury(process.killed_for or explain_exit(process.exit_code)[0])
        elif not self._sessions and now - self._used > KEEP_PROCESS:
            self.stop()
        elif process.reported:
            if now - process.heard > self._settings.hung_timeout:
                process.kill(say("it gave no sign of life"))
        elif now - process.started > self._settings.start_timeout:
            process.kill(say("it did not get ready"))

    def _bury(self, reason: str) -> None:
        log.warning("The process for live sessions ended (%s)", reason)
        self.stop()
        for key, session in list(self._sessions.items()):
            self._drop(key)
            sentence = say(
                "The process that draws live pictures ended ({reason}); switch Live on again.", reason=reason
            )
            self.refuse(session.client, session.name, "worker", sentence)

    def excuse(self, now: float) -> None:
        """Count no silence of the process that this one may have slept through."""
        if self._process is not None:
            self._process.heard = now

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None


def _outbox(name: str) -> str:
    """What marks a session's messages in a client's outbox, apart from the jobs'."""
    return f"live/{name}"


def session_named(header: Mapping[str, object]) -> str | None:
    """The live session that a message is about, by its header; None where it is about none."""
    name, kinds = header.get("session"), [kind.__name__ for kind in (LiveOpen, LivePose, LiveClose)]
    return name if isinstance(name, str) and header["type"] in kinds else None
