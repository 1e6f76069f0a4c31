"""The socket that clients talk to, and what waits to be sent to each of them.

A ROUTER with mandatory routing: sending to a client whose pipe is full, or that is away for the moment, is
refused at once instead of being dropped, so the message waits here, in the client's outbox, and goes out as
soon as the client takes more. A client that comes back under its identity takes over where its old connection
ended. Messages leave uncopied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq

from shared import wire
from shared.address import DEFAULT_ADDRESS, Address

from . import ServerError

HANDSHAKE = 5000
"""Milliseconds in which who connects must turn out to be a client; after them the connection is closed."""
PIPE_MESSAGES = 8
"""High-water mark of each client's pipe; with 832 x 480 raw frames about 10 MB."""
OUTBOX_ANSWERS = 64
"""An outbox longer than this takes no more answers and progress."""


@dataclass(eq=False)
class OutgoingMessage:
    """`job` is the one it is about, None for a `Welcome`; `keep` is false where the next one makes up for
    it."""

    parts: Sequence
    job: str | None
    keep: bool
    is_frame: bool


@dataclass(eq=False)
class Client:
    """`away` while no connection of it is there, `gone` when it has been silent for long."""

    identity: bytes
    heard: float
    outbox: deque[OutgoingMessage] = field(default_factory=deque)
    away: bool = False
    gone: bool = False
    refused: bool = False

    def __str__(self):
        return self.identity.hex()[:12]


class Frontend:
    def __init__(self, context: zmq.Context, address: str):
        """Raises `ServerError` when it can't listen on the address, `AddressError` when it is none."""
        where = Address.parse(address)
        self.clients: dict[bytes, Client] = {}
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 1000
        self.socket.handshake_ivl = HANDSHAKE
        self.socket.router_mandatory = True
        self.socket.router_handover = True
        self.socket.sndhwm = PIPE_MESSAGES
        self.socket.rcvhwm = PIPE_MESSAGES
        self.socket.maxmsgsize = wire.MAX_PART
        self.socket.ipv6 = where.is_ipv6
        try:
            self.socket.bind(str(where))
        except zmq.ZMQError as error:
            self.socket.close(0)
            if error.errno == zmq.EADDRINUSE:
                raise ServerError(
                    f"{address} is in use already, perhaps by another server; stop it or use another port."
                ) from None
            raise ServerError(
                f"Can't listen on {address} ({error.strerror}); "
                f"give an address of this machine, like {DEFAULT_ADDRESS}."
            ) from None
        self.endpoint = self.socket.last_endpoint.rstrip(b"\0").decode()

    def receive(self, now: float) -> tuple[Client, list[zmq.Frame]] | None:
        """The next message with the client it came from, None when there is none for now."""
        try:
            identity = self.socket.recv(zmq.DONTWAIT)
        except zmq.Again:
            return None
        parts: list[zmq.Frame] = []
        while self.socket.rcvmore:
            part = self.socket.recv(copy=False)
            if len(parts) <= wire.MAX_PARTS:
                parts.append(part)
        client = self.clients.setdefault(identity, Client(identity, now))
        client.heard = now
        client.away = client.gone = False
        return client, parts

    def send(self, client: Client, message: Any, keep: bool = True) -> bool:
        return self.forward(client, wire.encode(message), getattr(message, "job", None), keep)

    def forward(
        self, client: Client, parts: Sequence, job: str | None, keep: bool, is_frame: bool = False
    ) -> bool:
        """Send a message or put it into the outbox; one that needs not be kept is dropped when much waits,
        and false is returned."""
        if not keep and len(client.outbox) >= OUTBOX_ANSWERS:
            return False
        client.outbox.append(OutgoingMessage(parts, job, keep, is_frame))
        self._flush(client)
        return True

    def discard(self, client: Client, job: str) -> int:
        """Take back what is unsent of a job; returns how many frames that were."""
        taken = [message for message in client.outbox if message.job == job]
        client.outbox = deque(message for message in client.outbox if message.job != job)
        return sum(message.is_frame for message in taken)

    def flush(self) -> None:
        """Send what connected clients take by now; one that is away is tried again when it has spoken."""
        for client in self.clients.values():
            if client.outbox and not client.away:
                self._flush(client)

    def _flush(self, client: Client) -> None:
        while client.outbox:
            try:
                parts = [client.identity, *client.outbox[0].parts]
                self.socket.send_multipart(parts, zmq.DONTWAIT, copy=False)
            except zmq.ZMQError as error:
                if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                    raise
                client.away = error.errno == zmq.EHOSTUNREACH
                return
            client.outbox.popleft()

    @property
    def blocked(self) -> bool:
        """Whether a connected client has messages waiting for room in its pipe."""
        return any(client.outbox and not client.away for client in self.clients.values())

    def forget(self, client: Client) -> None:
        self.clients.pop(client.identity, None)

    def close(self) -> None:
        """Send what clients take within the linger time and close."""
        self.socket.close()
