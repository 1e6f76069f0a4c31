"""The worker's two sockets: on `control` a thread listens for requests and cancels, on `events` all goes out.

Both lead to one ROUTER of the broker. Listening goes on while an engine works, so a cancel is known at once.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import zmq

from shared import wire
from shared.messages import JOBS, Cancel, Hello

_JOBS = frozenset(kind.__name__ for kind in JOBS)
HEARTBEAT = 2.0
"""Seconds between two signs of life; they come from a thread of their own, whatever the engine does."""
PIPE_MESSAGES = 4
"""High-water mark toward the broker; beyond it sending blocks until the broker, and in the end the client,
takes more."""


class WorkItem:
    """A request as it came, and whether its job has been cancelled."""

    def __init__(self, job: str, parts: Sequence):
        self.job = job
        self.parts = parts
        self.cancelled = threading.Event()
        self.on_cancel: Callable[[], object] = lambda: None

    def cancel(self) -> None:
        """May be called from any thread."""
        self.cancelled.set()
        self.on_cancel()


class Sender(Protocol):
    """Where a job's messages go."""

    def send(self, message: Any) -> None:
        """May block. Only one thread may send at a time."""


class Link:
    """`vitals` gives what each sign of life says."""

    def __init__(self, address: str, token: str, vitals: Callable[[], bytes]):
        self._vitals = vitals
        self._context = zmq.Context()
        self._events = self._connect(address, f"{token}/events")
        self._waiting: queue.SimpleQueue[WorkItem | None] = queue.SimpleQueue()
        self._latest: WorkItem | None = None
        control = self._connect(address, f"{token}/control")
        threading.Thread(target=self._listen, args=(control,), daemon=True).start()

    def _connect(self, address: str, identity: str) -> zmq.Socket:
        socket = self._context.socket(zmq.DEALER)
        socket.routing_id = identity.encode()
        socket.sndhwm = PIPE_MESSAGES
        socket.linger = 5000
        socket.connect(address)
        return socket

    def _listen(self, control: zmq.Socket) -> None:
        control.linger = 0
        while True:
            try:
                with contextlib.suppress(zmq.Again):
                    control.send(self._vitals(), zmq.DONTWAIT)
                if not control.poll(int(HEARTBEAT * 1000)):
                    continue
                parts = [part.buffer for part in control.recv_multipart(copy=False)]
            except zmq.ContextTerminated:
                control.close()
                return
            self._take(wire.read_header(parts), parts)

    def _take(self, header: dict[str, Any], parts: Sequence) -> None:
        """A message of the broker has come; called in the listening thread."""
        if header["type"] in _JOBS:
            self._latest = WorkItem(header["job"], parts)
            self._waiting.put(self._latest)
        elif header["type"] == Hello.__name__:
            self._waiting.put(None)
        elif header["type"] == Cancel.__name__ and self._latest and self._latest.job == header["job"]:
            self._latest.cancel()

    def wait(self) -> WorkItem | None:
        """The next request, or None when the broker asks what this worker can do."""
        return self._waiting.get()

    def send(self, message: Any) -> None:
        """Blocks while the broker takes nothing. Only one thread may send at a time."""
        self.forward(wire.encode(message))

    def forward(self, parts: Sequence) -> None:
        """As `send`, for a message that is encoded already."""
        self._events.send_multipart(parts, copy=False)

    def close(self) -> None:
        """Returns when all is sent."""
        self._events.close()
        self._context.term()
