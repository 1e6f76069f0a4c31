"""The worker process as the broker sees it: started, spoken to, watched and ended.

Each process has a socket of its own, in a folder that only this user can enter (or, where there are no such
sockets, on the loopback interface), and proves itself by a secret handed to it through its standard input.
When that pipe closes, because the broker died, the worker tidies up after it and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgpack
import zmq

from shared import wire
from shared.messages import Hello
from shared.sentences import say

from .. import NODE_LOST

PIPE_MESSAGES = 4
"""High-water mark toward the broker: how many frames a worker gets ahead of what the broker reads."""

_CRASH = say("a crash in native code")
_CAUSES = {
    "SIGKILL": say("most likely the machine ran out of memory"),
    "SIGSEGV": _CRASH,
    "SIGBUS": _CRASH,
    "SIGILL": _CRASH,
    "SIGFPE": _CRASH,
    "SIGABRT": say("native code gave up"),
    "SIGTERM": say("somebody ended it"),
}
_WINDOWS_CAUSES = {0xC0000005: _CRASH, 0xC0000017: say("the machine ran out of memory")}


AT_ONCE = 5.0
"""Seconds in which a process that is killed ends, unless a driver or a disk holds it."""
CANT_START = (OSError, zmq.ZMQError, RuntimeError, MemoryError)
"""What the start of a process raises where no descriptor, process, thread or memory is left for it."""


class Vitals(NamedTuple):
    """Bytes that a process holds of the host's memory, and what all hold of its card's."""

    memory: int = 0
    card_used: int = 0
    card_total: int = 0


class WorkerProcess:
    """`reported` turns true when the process has said what engines it has, `idle` while it waits for a job.
    `heard` is when it last gave a sign of life, `exit_code` is None while it runs, and `killed_for` says why
    it was ended, where that was done on purpose."""

    def __init__(
        self,
        context: zmq.Context,
        engines: Mapping[str, str],
        folder: str,
        on_exit: Callable[[], None],
        environment: Mapping[str, str],
        live: bool = False,
        ray: str = "",
        silence: float = 15.0,
    ):
        """Start a process that offers `engines`, for clips or for `live` sessions, with `environment` beside
        this one's own; with `ray` it runs them in the Ray cluster of this address, and ends when nothing is
        heard from there for `silence` seconds. `on_exit` is called, in another thread, when it ended.

        Raises one of `CANT_START` where the system lacks something for it now.
        """
        self.reported = self.idle = False
        self.exit_code: int | None = None
        self.killed_for = ""
        self.vitals = Vitals()
        self.started = self.heard = time.monotonic()
        token = secrets.token_hex(32)
        self._control, self._events = f"{token}/control".encode(), f"{token}/events".encode()
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.router_mandatory = True
        self.socket.rcvhwm = PIPE_MESSAGES
        path = os.path.join(folder, secrets.token_hex(4))
        local = zmq.has("ipc") and os.name == "posix" and len(path) < zmq.IPC_PATH_MAX_LEN
        self._greeted = False
        try:
            self.socket.bind(f"ipc://{path}" if local else "tcp://127.0.0.1:*")
            self._on_exit = on_exit
            order = {
                "engines": dict(engines),
                "token": token,
                "folder": folder,
                "live": live,
                "ray": ray,
                "silence": silence,
            }
            self._process = self._start(order, environment)
            try:
                threading.Thread(target=self._watch, daemon=True).start()
            except BaseException:
                self._process.kill()
                self._process.wait()
                self._stdin.close()
                raise
        except BaseException:
            self.socket.close()
            raise

    def _start(self, order: Mapping[str, object], environment: Mapping[str, str]) -> subprocess.Popen:
        order = {**order, "address": self.socket.last_endpoint.rstrip(b"\0").decode()}
        process = subprocess.Popen(
            [sys.executable, "-m", "inference_server.worker"],
            stdin=subprocess.PIPE,
            stdout=sys.stderr.fileno(),
            env=os.environ
            | dict(environment)
            | {"PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, os.getcwd()]))},
        )
        assert process.stdin is not None
        self._stdin = process.stdin
        try:
            self._stdin.write(json.dumps(order).encode() + b"\n")
            self._stdin.flush()
        except OSError:
            pass  # it has ended already, which the watch tells
        return process

    def _watch(self):
        self._process.wait()
        self.exit_code = self._process.returncode
        self._on_exit()

    def send(self, parts: Sequence) -> bool:
        """Hand a message to the worker; false when it can't be reached any more."""
        try:
            self.socket.send_multipart([self._control, *parts], zmq.DONTWAIT, copy=False)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            return False
        return True

    def receive(self, now: float) -> list[zmq.Frame] | None:
        """The worker's next message, None when there is none for now."""
        while True:
            try:
                sender, *parts = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return None
            if sender.bytes in (self._events, self._control):
                self.heard = now
            if sender.bytes == self._events:
                return parts
            if sender.bytes == self._control:
                self._note_vitals(parts)
                if not self._greeted:  # it listens now
                    self._greeted = self.send(wire.encode(Hello()))

    def _note_vitals(self, parts: Sequence[zmq.Frame]) -> None:
        try:
            vitals = msgpack.unpackb(parts[0].buffer)
            self.vitals = Vitals(**{name: int(vitals[name]) for name in Vitals._fields})
        except (LookupError, TypeError, ValueError):
            pass  # an engine may have written over its own process

    def kill(self, reason: str = "") -> None:
        self.killed_for = reason
        self._process.kill()

    def dismiss(self) -> None:
        """Ask the process to end."""
        try:
            self._stdin.write(b".")
            self._stdin.close()
        except (OSError, ValueError):
            pass  # it has ended, with what the pipe still held unread; or it was asked before

    def close(self, timeout: float = 2.0) -> None:
        """End the process, kindly for `timeout` seconds."""
        self.dismiss()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(AT_ONCE)
        self.socket.close()


def explain_exit(code: int) -> tuple[str, str]:
    """An exit code as `subprocess` gives it, in words, and what the user can do about it."""
    if code == NODE_LOST:
        return say("its machine or its process in the Ray cluster was lost"), say("generate again.")
    if code >= 0:
        cause = _WINDOWS_CAUSES.get(code)
        name = say("exit code {code}", code=hex(code) if cause else code)
    else:
        names = {number.value: number.name for number in signal.Signals}
        cause = _CAUSES.get(names.get(-code, ""))
        name = say("signal {number}", number=-code)
    if cause and "memory" in cause:
        remedy = say("choose a smaller size or fewer frames and generate again.")
    else:
        remedy = say("generate again, and report it with the server's log if it comes back.")
    return say("{name}: {cause}", name=name, cause=cause) if cause else name, remedy
