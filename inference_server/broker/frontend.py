"""The socket that clients talk to, and what waits to be sent to each of them.

A ROUTER with mandatory routing: sending to a client whose pipe is full, or whose connection has ended, is
refused at once instead of being dropped. To one whose pipe is full the message waits here, in its outbox, and
goes out as soon as the client takes more. Messages leave uncopied.

Nobody gets to say anything who has not proved to have one of the keys that are let in (see `keys`). The key
tells whose a connection is; each connection is a client of its own, also when one user has several.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import recv_monitor_message

from shared import wire
from shared.address import DEFAULT_ADDRESS, Address
from shared.messages import PIECE_BYTES, Failed, Piece
from shared.pieces import WINDOW, Assembly
from shared.schema import MessageError

from . import ServerError
from .descriptors import received_bytes, spare_descriptors
from .keys import KeyRing

log = logging.getLogger(__name__)

HANDSHAKE = 5000
"""Milliseconds in which who connects must prove to be let in; after them the connection is closed."""
TRIED_AFTER, TRIED_EVERY, TRIES = 10, 10, 2
"""Seconds after which the system tries a silent connection, and again; how often until it is closed. ZeroMQ's
own heartbeats end the process where they meet a connection that broke while much of it was unread (libzmq
4.3.5: `!_io_error`)."""
PIPE_MESSAGES = 8
"""High-water mark of each client's pipe; with 832 x 480 raw frames about 10 MB."""
ENVELOPE = 4096
"""Bytes that a part may have beyond a piece's."""
MOST_UNHEARD = 64 << 20
"""Bytes that may come over a connection before a message is whole."""
MOST_ASSEMBLED = 512 << 20
"""Bytes of unfinished messages, of all clients together, beyond which no more of them is asked for."""
MOST_OF_A_USER = wire.MAX_TOTAL + (16 << 20)
"""The same of one user."""
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
    """A connection.

    `user` is the key that it has proved to have, `name` what that is called, `handle` the system's for the
    connection. `away` when it has ended, `gone` when nothing was heard for long."""

    identity: bytes
    user: bytes
    name: str
    heard: float
    handle: int
    outbox: deque[OutgoingMessage] = field(default_factory=deque)
    away: bool = False
    gone: bool = False
    assembly: Assembly | None = None
    refused: bool = False

    def __str__(self):
        return f"{self.name} ({self.identity.hex()})"


class Frontend:
    """While there are `max_connections`, or as many as leave enough descriptors, others are refused."""

    def __init__(self, context: zmq.Context, address: str, keys: KeyRing, max_connections: int = 512):
        """Raises `ServerError` when it can't listen on the address, `AddressError` when it is none."""
        where = Address.parse(address)
        self.clients: dict[bytes, Client] = {}
        self._keys, self.max_connections = keys, max_connections
        self._measured = 0.0
        self._connections: dict[int, int] = {}
        """By its handle, in the order in which they came: how many bytes had come when the last message was
        whole, -1 before the first."""
        with ExitStack() as undo:  # a socket left open would keep the context from ever ending
            self._authenticator = ThreadAuthenticator(context)
            undo.callback(self._authenticator.stop)
            self._authenticator.configure_curve_callback(credentials_provider=keys)
            self._authenticator.start()
            self.socket = context.socket(zmq.ROUTER)
            undo.callback(self.socket.close, 0)
            self._listen(where)
            undo.pop_all()
        self.endpoint = self.socket.last_endpoint.rstrip(b"\0").decode()
        self._port = Address.parse(self.endpoint).port

    def _listen(self, where: Address) -> None:
        """Raises `ServerError` when that is not possible."""
        self.socket.linger = 1000
        self.socket.handshake_ivl = HANDSHAKE
        self.socket.tcp_keepalive = 1
        self.socket.tcp_keepalive_idle, self.socket.tcp_keepalive_intvl = TRIED_AFTER, TRIED_EVERY
        self.socket.tcp_keepalive_cnt = TRIES
        self.socket.curve_server = True
        self.socket.curve_secretkey = self._keys.server_secret
        self.socket.router_mandatory = True
        self.socket.sndhwm = PIPE_MESSAGES
        self.socket.rcvhwm = PIPE_MESSAGES
        self.socket.maxmsgsize = PIECE_BYTES + ENVELOPE
        self.socket.ipv6 = where.is_ipv6
        self.monitor = self.socket.get_monitor_socket(
            zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        try:
            self.socket.bind(str(where))
        except zmq.ZMQError as error:
            self.socket.disable_monitor()
            self.monitor.close(0)
            if error.errno == zmq.EADDRINUSE:
                raise ServerError(
                    "{where} is in use already, perhaps by another server; stop it or use another port.",
                    where=where,
                ) from None
            raise ServerError(
                "Can't listen on {where} ({reason}); give an address of this machine, like {default}.",
                where=where,
                reason=error.strerror,
                default=DEFAULT_ADDRESS,
            ) from None

    def watch(self) -> None:
        """Keep count of the connections, and hang up on one for each that is too many: on who came first of
        those that have not said anything yet, or else on who came last."""
        while self.monitor.poll(0):
            told = recv_monitor_message(self.monitor)
            if told["event"] == zmq.EVENT_ACCEPTED:
                self._connections[told["value"]] = -1
            elif told["event"] == zmq.EVENT_DISCONNECTED:
                self._connections.pop(told["value"], None)
            else:
                log.warning("Somebody was refused whose key is not let in")
        most = min(self.max_connections, spare_descriptors())
        while len(self._connections) > most:
            log.warning("There are more than %d connections; hanging up on one", most)
            silent = (handle for handle, count in self._connections.items() if count < 0)
            handle = next(silent, None) or next(reversed(self._connections))
            del self._connections[handle]
            self._hang_up(handle)

    def cut_off_endless(self, now: float) -> None:
        """Hang up on those whose message does not end: ZeroMQ holds its parts until the last has come. Looks
        at who is connected a few times a second at most."""
        if now - self._measured < 0.2:
            return
        self._measured = now
        for handle, before in list(self._connections.items()):
            if before >= 0 and received_bytes(handle) - before > MOST_UNHEARD:
                log.warning("A message does not end; hanging up")
                del self._connections[handle]
                self._hang_up(handle)

    @property
    def connected(self) -> bool:
        """Whether anybody is."""
        return bool(self._connections)

    @property
    def attended(self) -> bool:
        """Whether anybody is connected of whom something is still heard."""
        return self.connected and not all(client.gone for client in self.clients.values())

    def hang_up(self, client: Client) -> None:
        """End a client's connection; it may come back."""
        self._hang_up(client.handle)

    def _hang_up(self, handle: int) -> None:
        """End a connection by its handle, which is ZeroMQ's: only if it still is one of this address."""
        connection = None
        try:
            connection = socket.socket(fileno=handle)
            if connection.getsockname()[1] == self._port:
                connection.shutdown(socket.SHUT_RDWR)
        except (OSError, IndexError):
            pass  # it has ended meanwhile
        finally:
            if connection is not None:
                connection.detach()

    def receive(self, now: float) -> tuple[Client | None, list[memoryview]] | None:
        """The next message with the client it came from, None when there is none for now. The client is None
        when its key has been taken away meanwhile, and for a part of a message that is not whole yet."""
        try:
            sender = self.socket.recv(zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return None
        parts: list[zmq.Frame] = []
        while self.socket.rcvmore:
            part = self.socket.recv(copy=False)
            if len(parts) <= wire.MAX_PARTS:
                parts.append(part)
        if (handle := sender.get(zmq.SRCFD)) in self._connections:
            self._connections[handle] = received_bytes(handle)
        user = str(sender.get("User-Id")).encode()
        if (name := self._keys.name_of(user)) is None:
            return None, []
        client = self.clients.get(sender.bytes)
        if client is None or client.user != user:
            client = self.clients[sender.bytes] = Client(sender.bytes, user, name, now, handle)
        client.heard = now
        client.away = client.gone = False
        buffers = [part.buffer for part in parts]
        if len(buffers) == 2 and len(buffers[1]) and (piece := _piece(buffers)) is not None:
            return self._assemble(client, piece)
        return client, buffers

    def _assemble(self, client: Client, piece: Piece) -> tuple[Client | None, list[memoryview]]:
        """Put a piece to those before it; gives the message once it is whole."""
        if piece.offset == 0:
            client.assembly = None
        try:
            if piece.total > wire.MAX_TOTAL + PIECE_BYTES:
                raise MessageError(
                    "The message is too large; choose a smaller size, fewer frames or shorter texts."
                )
            if client.assembly is None:
                client.assembly = Assembly(piece.stream, piece.total)
            client.assembly.add(piece)
            if client.assembly.whole:
                parts, client.assembly = client.assembly.parts(), None
                self._feed()
                return client, parts
        except MessageError as error:
            client.assembly = None
            self.send(client, Failed(code="invalid", message=str(error)), keep=False)
        else:
            self._feed()
        return None, []

    def _feed(self) -> None:
        """Ask for more of unfinished messages, as far as there is room for them."""
        unfinished = [(client, client.assembly) for client in self.clients.values() if client.assembly]
        held = sum(map(len, (assembly for _, assembly in unfinished)))
        for client, assembly in unfinished:
            own = sum(len(other) for another, other in unfinished if another.user == client.user)
            if assembly.hungry and held + WINDOW <= MOST_ASSEMBLED and own + WINDOW <= MOST_OF_A_USER:
                held += WINDOW
                self.send(client, assembly.grant())

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
        """Send what connected clients take by now."""
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

    def close(self, linger: int | None = None) -> None:
        """Send what clients take within the linger time (milliseconds) and close."""
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(linger)
        self._authenticator.stop()


def _piece(buffers: list[memoryview]) -> Piece | None:
    """The piece that a message is, None where it is another, or none that can be read."""
    try:
        if wire.read_header(buffers)["type"] != Piece.__name__:
            return None
        return wire.decode(buffers, (Piece,))
    except MessageError:
        return None
