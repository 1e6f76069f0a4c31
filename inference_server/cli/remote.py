"""A server that runs already, as a command talks to it: one question after the other, and no thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import zmq

from shared import wire
from shared.address import DEFAULT_ADDRESS, AddressError
from shared.keys import TokenError, destination, local_token
from shared.messages import (
    ENDINGS,
    SERVER_MESSAGES,
    Done,
    Failed,
    FoundPoses,
    Frame,
    FrameRequest,
    GenerationRequest,
    Hello,
    More,
    PoseRequest,
    Progress,
    Received,
    Resume,
    Status,
    StatusRequest,
    Welcome,
)
from shared.pieces import Sender

from .. import __version__
from ..poseanything.conditioning.pictures import read_picture

PATIENCE = 10.0
"""Seconds after which a server that has not answered counts as not there."""
HEARTBEAT = 2.0
"""Seconds between two signs of life."""
QUIET = 10.0
"""Seconds without news of a job after which it is asked for: the connection may have been another since."""
AHEAD = 8
"""Frames that are asked for before the first of them has come."""


class RemoteError(Exception):
    """The server can't do what was asked. Its text is one sentence that says why and what to do."""


def add_server_argument(parser) -> None:
    parser.add_argument(
        "--server",
        default=DEFAULT_ADDRESS,
        metavar="ADDRESS",
        help="the server's address, or the token of an invitation (default: %(default)s)",
    )


class Remote:
    """A connection. `welcome` is what the server said of itself."""

    def __init__(self, socket: zmq.Socket, address: str):
        self._socket, self.address = socket, address
        self._sender = Sender(self._send_parts)
        self._greeted = 0.0
        self.welcome: Welcome = self._first_welcome()

    def _first_welcome(self) -> Welcome:
        message = self.ask(Hello(client="command line", client_version=__version__), Welcome, Failed)
        if isinstance(message, Failed):
            raise RemoteError(message.message)
        return message

    @property
    def finds_poses(self) -> bool:
        finder = self.welcome.pose_finder
        return finder is not None and finder.ready

    def send(self, message: Any) -> None:
        self._sender.send(message)

    def _send_parts(self, parts: Sequence) -> bool:
        try:
            self._socket.send_multipart(parts, copy=False)
        except zmq.Again:  # ZeroMQ has no connection any more, as where a key is not let in
            raise self._no_answer() from None
        return True

    def receive(self, timeout: float) -> Any:
        """The next message, None when none came in time. Says every now and then that this end is there."""
        deadline = time.monotonic() + timeout
        while True:
            now = time.monotonic()
            if now - self._greeted > HEARTBEAT:
                self._greeted = now
                self.send(Hello(client="command line", client_version=__version__))
            if self._socket.poll(max(0, 1000 * min(HEARTBEAT, deadline - now))):
                parts = [part.buffer for part in self._socket.recv_multipart(copy=False)]
                message = wire.decode(parts, SERVER_MESSAGES)
                if not isinstance(message, More):
                    return message
                self._sender.hear(message)
            if now >= deadline:
                return None

    def ask(self, question: Any, *answers: type) -> Any:
        """Send a message and wait for one of some types. Raises `RemoteError` where none comes."""
        self.send(question)
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            message = self.receive(left)
            if isinstance(message, answers):
                return message
        raise self._no_answer()

    def _no_answer(self) -> RemoteError:
        return RemoteError(
            f"No server that lets you in answers at {self.address}; start one with poseanything-server, or "
            "name another with --server."
        )

    def status(self) -> Status:
        return self.ask(StatusRequest(), Status)

    def until(self, condition: Callable[[], bool], pause: float = 0.2, timeout: float = PATIENCE) -> None:
        """Wait for what the server does. Raises `RemoteError` where it does not."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise RemoteError(f"The server at {self.address} has not done it within {timeout:.0f} s.")
            self.receive(pause)

    def frames(self, job: str, count: int) -> Iterator[Frame]:
        """The first frames of a job, which the server has. Raises `RemoteError` where it has not (any
        more)."""
        asked = 0
        for index in range(count):
            while asked < min(count, index + AHEAD):
                self.send(FrameRequest(job=job, index=asked))
                asked += 1
            deadline = time.monotonic() + PATIENCE
            while True:
                message = self.receive(deadline - time.monotonic())
                if isinstance(message, Frame) and (message.job, message.index) == (job, index):
                    yield message
                    break
                if message is None or (isinstance(message, Failed) and message.job == job):
                    raise RemoteError(f"Frame {index} of {job!r} can't be had; look with the command jobs.")

    def make(
        self, requests: Sequence[GenerationRequest | PoseRequest]
    ) -> Iterator[Frame | Progress | Done | FoundPoses]:
        """Have jobs done side by side: their frames, each clip's in order, how far they are, and their ends.

        The server makes them also where this end goes away; `Received` is said of those that have come whole.
        Raises `RemoteError` with the server's sentence where one can't be made.
        """
        have = {request.job: 0 for request in requests}
        for request in requests:
            self.send(request)
        heard = time.monotonic()
        while have:
            message = self.receive(1.0)
            job = getattr(message, "job", None)
            if job in have:
                heard = time.monotonic()
                if isinstance(message, Frame):
                    if message.index != have[job]:
                        continue  # sent before it was asked for anew, or after a break that is noticed soon
                    have[job] += 1
                    yield message
                elif isinstance(message, Progress):
                    yield message
                elif isinstance(message, FoundPoses) or (
                    isinstance(message, Done) and message.num_frames == have[job]
                ):
                    self.send(Received(job=job))
                    del have[job]
                    yield message
                elif isinstance(message, ENDINGS) and not isinstance(message, Done):
                    self.send(Received(job=job))
                    raise RemoteError(getattr(message, "message", "") or f"The job {job!r} was cancelled.")
            elif time.monotonic() - heard > QUIET:
                heard = time.monotonic()
                for name, count in have.items():
                    self.send(Resume(job=name, have=count))


@contextmanager
def connect(server: str) -> Iterator[Remote]:
    """A server to talk to, by its address or a token. Raises `RemoteError` where none answers."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 1000
    socket.sndtimeo = 2000
    socket.maxmsgsize = wire.MAX_PART
    try:
        address, token = destination(server)
        token = token or local_token()
        if token is None:
            raise RemoteError(
                f"You have no key for a server at {address}: name it by the token of an invitation, or start "
                "one with poseanything-server."
            )
        token.apply_to(socket)
        socket.ipv6 = address.is_ipv6
        socket.connect(str(address))
        yield Remote(socket, str(address))
    except (TokenError, AddressError) as error:
        raise RemoteError(str(error)) from error
    except zmq.ZMQError as error:
        raise RemoteError(f"{server} can't be reached ({error.strerror}).") from error
    finally:
        context.destroy()


def picture_of(frame: Frame) -> np.ndarray:
    """RGB uint8 [height, width, 3]. Raises `RemoteError` for data that are no such picture."""
    if frame.format == "raw":
        return np.frombuffer(frame.data, np.uint8).reshape(frame.height, frame.width, 3)
    image = read_picture(frame.data)
    if image is None or image.shape[:2] != (frame.height, frame.width):
        raise RemoteError(f"Frame {frame.index} of {frame.job!r} is no picture of its size.")
    return image
