"""The client: one daemon thread that owns a ZeroMQ DEALER socket. It knows nothing of bpy.

The main thread hands in requests and takes out events, neither of which ever waits. Result frames go
straight from the socket to files in the thread; the main thread only learns how many there are.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import zmq

from .. import threads
from ..shared.address import DEFAULT_ADDRESS, Address
from ..shared.keys import Token
from ..shared.messages import GenerationRequest, Hello, LiveOpen, LivePose, PoseRequest, Welcome
from ..takes.writer import NoFrames, TakeWriter
from ..texts import say
from .conversation import Conversation
from .events import REFUSED, Inbox, LinkState, LiveAnswer

log = logging.getLogger(__name__)


class BridgeClient:
    """Talks to one server.

    Every method may be called from any thread and returns at once. Connects and reconnects by itself; a
    request submitted while no server answers waits for one.

        client = BridgeClient("tcp://127.0.0.1:47847")
        client.start()
        client.submit(request, TakeWriter(folder, "fox_001", request.num_frames))
        ended = False
        while not ended:
            for event in client.poll():
                ended |= isinstance(event, messages.ENDINGS)
        client.close()

    Args:
        address: `tcp://HOST:PORT`.
        version: the extension's, for the server's log.
        token: proves that this client is let in; without one, that of this user's own servers is taken.
    """

    def __init__(self, address: str, version: str = "", token: Token | None = None):
        self.address = address
        self.token = token
        self._hello = Hello(client=f"Blender {uuid.uuid4().hex[:8]}", client_version=version)
        self._commands: SimpleQueue[Callable[[Conversation], None]] = SimpleQueue()
        self._inbox = Inbox()
        self._context = zmq.Context()
        self._bell, self._ringing = self._context.socket(zmq.PAIR), threading.Lock()
        self._bell.bind("inproc://bell")
        self._thread = threading.Thread(target=self._run, name="poseanything-bridge", daemon=True)

    @property
    def link(self) -> LinkState:
        return self._inbox.link

    @property
    def welcome(self) -> Welcome | None:
        """What the server said of itself; nothing while none answers."""
        return self._inbox.welcome

    def start(self) -> None:
        """Raises `ValueError` with one sentence when the address can't be one."""
        where = Address.parse(self.address)
        probe = self._context.socket(zmq.DEALER)
        try:
            probe.connect(str(where))
        except zmq.ZMQError as error:
            raise ValueError(
                say(
                    "Nothing can be reached at {address} ({reason}); write it as {usual}.",
                    address=self.address,
                    reason=error.strerror,
                    usual=DEFAULT_ADDRESS,
                )
            ) from error
        finally:
            probe.close(linger=0)
        threads.add(self.parked)
        self._thread.start()

    def submit(self, request: GenerationRequest | PoseRequest, writer: TakeWriter | NoFrames) -> None:
        """Send a request once a server answers; its frames go to `writer`."""
        self._command(Conversation.submit, request, writer)

    def adopt(self, job: str, writer: TakeWriter | NoFrames, size: tuple[int, int]) -> None:
        """Fetch what `writer` lacks of a job for which this client or another of the same user has asked.

        `size` is the clip's width and height."""
        self._command(Conversation.adopt, job, writer, size)

    def cancel(self, job: str) -> None:
        """End a job; a `Cancelled` event follows unless it has ended already."""
        self._command(Conversation.cancel, job)

    def let_go(self, job: str) -> None:
        """Tell the server that a job of an earlier client is over here."""
        self._command(Conversation.let_go, job)

    def poll(self, limit: int = 100) -> list[object]:
        """At most `limit` of the events that came since, in order: messages of the server other than frames,
        `FramesSaved`, `Interrupted`, `Unsent` and `LinkState`. States of one job that nobody has taken out
        yet replace each other."""
        return self._inbox.take(limit)

    @contextmanager
    def parked(self, timeout: float) -> Iterator[bool]:
        """Hold the thread still while the context is open; the value says whether it is, as a thread that is
        busy for longer than `timeout` seconds goes on."""
        reached, gate = threading.Event(), threading.Lock()
        gate.acquire()
        self._command(Conversation.park, reached, gate)
        still = not self._thread.is_alive() or reached.wait(timeout)
        time.sleep(0.001)  # from telling that it is there to standing at the gate
        try:
            yield still
        finally:
            gate.release()

    def open_live(self, opening: LiveOpen) -> None:
        """Open a live session, and again whenever the server comes back."""
        self._command(Conversation.open_live, opening)

    def pose_live(self, pose: LivePose) -> None:
        """Have a pose drawn; it takes the place of one that waits."""
        self._command(Conversation.pose_live, pose)

    def close_live(self, session: str) -> None:
        self._command(Conversation.close_live, session)

    def poll_live(self) -> list[LiveAnswer]:
        """What live sessions were answered since the last call, of each the latest picture alone."""
        return self._inbox.take_live()

    def close(self, timeout: float = 2.0, keep: bool = False) -> None:
        """End the thread; what runs is cancelled, unless it is to be kept. What comes of that within
        `conversation.LAST_WORDS` can still be taken out. Waits no longer than `timeout` seconds."""
        if self._thread.ident is None:
            self._end()
        elif self._thread.is_alive():
            self._command(Conversation.close, keep)
            self._thread.join(timeout)

    def _command(self, command: Callable[..., None], *arguments: object) -> None:
        self._commands.put(lambda conversation: command(conversation, *arguments))
        with self._ringing:
            try:
                self._bell.send(b"", zmq.NOBLOCK)
            except zmq.ZMQError:
                pass  # the thread has more wake-ups waiting than it needs, or it has ended

    def _run(self) -> None:
        try:
            Conversation(
                self._context,
                Address.parse(self.address),
                self.token,
                self._hello,
                self._commands,
                self._inbox,
            ).hold()
        except Exception:
            log.exception("The client's thread ended")
            self._inbox.set_link(
                REFUSED,
                say("The connection broke down inside Blender; disable the extension and enable it again."),
            )
            raise
        finally:
            threads.remove(self.parked)
            self._end()

    def _end(self) -> None:
        """Leave ZeroMQ. It may be looking up the name of a server, so not in the main thread once it was told
        to connect."""
        with self._ringing:
            self._bell.close(linger=0)
        self._context.term()
