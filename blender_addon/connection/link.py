"""The socket to a server: reaches it, stays in touch, and finds out why where it can't. Knows of no job."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import zmq
from zmq.utils.monitor import recv_monitor_message

from ..shared import wire
from ..shared.address import Address
from ..shared.keys import Token, TokenError, local_token
from ..shared.messages import Hello
from ..texts import say
from . import probe

HEARTBEAT = 2.0
"""Seconds between two Hellos."""
PING, NO_BYTES = 10_000, 30_000
"""Milliseconds after which a silent connection is tried, and given up when not a byte comes."""
SILENCE = 120.0
"""Seconds without any message after which a connection counts as broken; slow lines take long for a frame."""
AWAKE = 5.0
"""Seconds in which a server must answer after this computer was asleep."""
CLOSING = 100
"""Milliseconds in which a connection that is given up is closed."""
RETRY = 2.0
"""Seconds after which it is tried again to get into conversation with what listens at the address."""
NO_CONVERSATION = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


class Listener(Protocol):
    """Whose link it is."""

    def link_has_keys(self, token: Token) -> None:
        """With these it is tried to reach the server."""

    def link_broke(self, sentence: str) -> None:
        """There was a connection, and it is gone."""

    def link_refused(self, sentence: str) -> None:
        """What listens at the address can't be used; the link goes on trying."""


class Link:
    """A DEALER socket of one thread.

    Args:
        context: ZeroMQ's.
        address: where the server listens.
        token: proves that this client is let in; without one, that of this user's own servers is taken, anew
            each time that it connects.
        hello: what is said at first and every `HEARTBEAT` seconds.
        listener: hears what becomes of the link.
    """

    def __init__(
        self, context: zmq.Context, address: Address, token: Token | None, hello: Hello, listener: Listener
    ):
        self.attached = False
        """Whether a server is at the other end."""
        self._address, self._token, self._hello, self._listener = address, token, hello, listener
        self._heard = self._greeted = 0.0
        self._clocks_apart = time.time() - time.monotonic()
        self._connecting = self._gave_up = False
        """Whether ZeroMQ is at work on a connection, and has given up as it was refused or met a stranger."""
        self._retry_at = time.monotonic() + RETRY
        self._doubtful, self._locked_out = False, 0
        """Whether the conversation failed to begin, and how often before a server that wants keys."""
        self.dealer = dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.IPV6, address.is_ipv6)
        dealer.setsockopt(zmq.MAXMSGSIZE, wire.MAX_PART)
        dealer.setsockopt(zmq.RCVHWM, 16)
        # What is left to say when a connection is given up goes with it; otherwise closing would wait for it
        # without end.
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.HANDSHAKE_IVL, 3000)
        dealer.setsockopt(zmq.HEARTBEAT_IVL, PING)
        dealer.setsockopt(zmq.HEARTBEAT_TIMEOUT, NO_BYTES)
        dealer.setsockopt(zmq.RECONNECT_IVL, 200)
        dealer.setsockopt(zmq.RECONNECT_IVL_MAX, 3000)
        self.monitor = dealer.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_CONNECT_RETRIED
            | NO_CONVERSATION
        )

    @property
    def pause(self) -> int:
        """Milliseconds for which it may be left alone."""
        # Right after the handshake the socket may not take a Hello yet: try again soon.
        return 20 if self.attached and not self._greeted else int(HEARTBEAT * 500)

    def close(self) -> None:
        self.dealer.disable_monitor()
        self.monitor.close(linger=0)
        self.dealer.close(linger=200)

    def connect(self) -> None:
        """Begin anew to reach the server, with the keys that are there now."""
        self._disconnect()
        try:
            token = self._token or local_token()
        except TokenError as error:
            self._listener.link_refused(str(error))
            return
        if token is not None:
            self._listener.link_has_keys(token)
            token.apply_to(self.dealer)
            self.dealer.connect(str(self._address))
            self._connecting = True
        elif self._look() == probe.LOCKED:
            self._listener.link_refused(
                say(
                    "The server at {address} is not yours; ask who runs it for an invitation, and paste "
                    "its token in the preferences.",
                    address=str(self._address),
                )
            )

    def send(self, parts: Sequence) -> bool:
        """Send the parts of one message; false when it can't be sent for now."""
        # Nothing is queued for a server that is not there: a heartbeat must not arrive an hour late. ZeroMQ's
        # own way to that, `IMMEDIATE`, ends Blender when a connection breaks while a message is being read
        # (libzmq 4.3.5: `!_more`).
        if not self.attached:
            return False
        try:
            self.dealer.send_multipart(parts, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        return True

    def receive(self) -> list[memoryview] | None:
        """The parts of the next message that is there."""
        try:
            parts = self.dealer.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        self._heard = time.monotonic()
        return [part.buffer for part in parts]

    def watch(self) -> None:
        """Take in what happened to the connection."""
        while self.monitor.poll(0):
            self._see(recv_monitor_message(self.monitor)["event"])

    def keep_alive(self) -> None:
        """Greet a server that is there, and look for one that is not."""
        now = time.monotonic()
        if self._slept():
            self._heard = min(self._heard, now - SILENCE + AWAKE)
            self._greeted = 0.0
        if self.attached:
            if now - self._greeted >= HEARTBEAT and self.send(wire.encode(self._hello)):
                self._greeted = now
        elif now >= self._retry_at:
            self._retry_at = now + RETRY
            if self._doubtful:
                self._doubt()
            if self._gave_up or not self._connecting:
                self.connect()

    def give_up_if_silent(self) -> None:
        """A connection may be dead without either side knowing, as after a laptop's sleep."""
        if self.attached and time.monotonic() - self._heard > SILENCE:
            self.connect()
            self._break(say("The server has not answered for {seconds:.0f} seconds.", seconds=SILENCE))

    def _disconnect(self) -> None:
        if self._connecting:
            self.dealer.disconnect(str(self._address))
        self._connecting = self._gave_up = False

    def _break(self, sentence: str) -> None:
        self.attached = False
        self._listener.link_broke(sentence)

    def _see(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.attached = True
            self._locked_out = 0
            self._heard = time.monotonic()
            self._greeted = 0.0
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._listener.link_refused(
                say(
                    "The server at {address} does not let your key in (any more); ask who runs it for a new "
                    "invitation.",
                    address=str(self._address),
                )
            )
        elif event == zmq.EVENT_DISCONNECTED and self.attached:
            self._break(say("The connection to the server broke."))
            self.connect()  # by itself ZeroMQ would send what was left to say over the next connection
        elif event == zmq.EVENT_DISCONNECTED:
            self._gave_up = self._doubtful = True
        elif event == zmq.EVENT_CONNECT_RETRIED:
            self._gave_up = False
        elif event & NO_CONVERSATION:
            self._doubtful = True

    def _doubt(self) -> None:
        """A connection came about, but no conversation: find out why."""
        self._doubtful = False
        self._disconnect()  # there may be room for one connection alone
        self.dealer.poll(CLOSING)  # ZeroMQ closes it only while its socket is looked at
        seen = self._look()
        self._locked_out += seen == probe.LOCKED
        if seen == probe.LOCKED and self._locked_out > 1:  # once may have been a server that was just ending
            self._listener.link_refused(
                say(
                    "The server at {address} is not the one that your keys are for; ask who runs it for an "
                    "invitation, and paste its token in the preferences.",
                    address=str(self._address),
                )
            )

    def _look(self) -> str:
        """What listens at the address; refused where it is none of ours."""
        seen = probe.look(self._address)
        if seen == probe.STRANGER:
            self._listener.link_refused(stranger(self._address))
        elif seen == probe.OPEN:
            self._listener.link_refused(
                say(
                    "The server at {address} is of an earlier release; install the same release of the "
                    "extension and the server.",
                    address=str(self._address),
                )
            )
        return seen

    def _slept(self) -> bool:
        """Whether the computer was asleep since this was last asked: only the clock on the wall went on."""
        apart, before = time.time() - time.monotonic(), self._clocks_apart
        self._clocks_apart = apart
        return apart - before > AWAKE


def stranger(address: Address) -> str:
    """The sentence for what answers and is none of ours."""
    return say(
        "What answers at {address} is not a PoseAnything server; choose another address.",
        address=str(address),
    )
