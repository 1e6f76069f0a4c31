"""The client: one daemon thread that owns a ZeroMQ DEALER socket. It knows nothing of bpy.

The main thread hands in requests and takes out events, neither of which ever waits. Result frames go
straight from the socket to files in this thread; the main thread only learns how many there are. What is
waiting to be taken out is kept as the latest state of each job, so a fast server can't pile up work for a
busy Blender.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

import zmq
from zmq.utils.monitor import recv_monitor_message

from .. import threads
from ..shared import messages, wire
from ..shared.address import DEFAULT_ADDRESS, Address
from ..shared.keys import Token, TokenError, local_token
from ..shared.messages import (
    Accepted,
    Cancel,
    Cancelled,
    Done,
    Failed,
    Forgotten,
    Frame,
    GenerationRequest,
    Hello,
    LiveClose,
    LiveEnded,
    LiveOpen,
    LivePicture,
    LivePose,
    LiveReady,
    More,
    PoseRequest,
    Preview,
    Progress,
    Queued,
    Received,
    Resume,
    Welcome,
)
from ..shared.pieces import Sender
from ..shared.schema import MessageError
from ..takes.writer import NoFrames, TakeWriter, WriteError
from ..texts import say
from . import probe
from .goodbyes import Goodbyes
from .live import LiveView

log = logging.getLogger(__name__)

HEARTBEAT = 2.0
"""Seconds between two Hellos."""
SILENCE = 120.0
"""Seconds without any message after which a connection counts as broken; slow lines take long for a frame."""
PING, NO_BYTES = 10_000, 30_000
"""Milliseconds after which a silent connection is tried, and given up when not a byte comes."""
AWAKE = 5.0
"""Seconds in which a server must answer after this computer was asleep."""
MOST_GAPS = 3
"""How often a job may be asked for anew because a frame is missing."""
LAST_WORDS = 1.0
"""Seconds for which a client that is closed waits for what the server has yet to confirm."""
CLOSING = 100
"""Milliseconds in which a connection that is given up is closed."""
RETRY = 2.0
"""Seconds after which it is tried again to get into conversation with what listens at the address."""
NO_CONVERSATION = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
CONNECTING, CONNECTED, REFUSED = "CONNECTING", "CONNECTED", "REFUSED"


@dataclass(frozen=True)
class LinkState:
    """Whether a server answers: `CONNECTING` (none does, still trying), `CONNECTED`, or `REFUSED` (one
    does, but can't be used); `sentence` says why not."""

    state: str
    sentence: str = ""


@dataclass(frozen=True)
class FramesSaved:
    """The first `count` frames of a job are on disk."""

    job: str
    count: int


@dataclass(frozen=True)
class Interrupted:
    """The connection broke while the server had a job; it goes on there, and here when the server is back."""

    job: str


@dataclass(frozen=True)
class Unsent:
    """The server went away before it began with a job; the job waits here for the next one."""

    job: str


@dataclass
class _Goodbye:
    """What the server is told of a job that is over here, until it confirms; `told` over this connection."""

    message: Cancel | Received
    told: bool = False


class _Submission:
    """A request in the thread's keeping, until its job ends; the message itself until a server is at work on
    it."""

    def __init__(
        self,
        request: GenerationRequest | PoseRequest | None,
        writer: TakeWriter | NoFrames,
        size: tuple[int, int],
    ):
        """Without a request, of a job that a server has already."""
        self.request = request
        self.writer = writer
        self.num_frames = writer.num_frames
        self.size = size
        self.sent = self.interrupted = request is None
        self.accepted = False
        """Since then nothing that comes counts, until the server has taken up the job anew."""
        self.asked = False
        self.gaps = 0


LiveAnswer: TypeAlias = LiveReady | LivePicture | LiveEnded


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
        self.link = LinkState(CONNECTING)
        self.welcome: Welcome | None = None
        self._hello = Hello(client=f"Blender {uuid.uuid4().hex[:8]}", client_version=version)
        self._commands: SimpleQueue[tuple] = SimpleQueue()
        self._inbox: dict[tuple, object] = {}
        self._live_inbox: dict[tuple, LiveAnswer] = {}
        self._lock = threading.Lock()
        self._context = zmq.Context()
        self._bell = self._context.socket(zmq.PAIR)
        self._bell.bind("inproc://bell")
        self._thread = threading.Thread(target=self._run, name="poseanything-bridge", daemon=True)

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
        self._command("submit", request, writer)

    def adopt(self, job: str, writer: TakeWriter | NoFrames, size: tuple[int, int]) -> None:
        """Fetch what `writer` lacks of a job for which this client or another of the same user has asked.

        `size` is the clip's width and height."""
        self._command("adopt", job, writer, size)

    def cancel(self, job: str) -> None:
        """End a job; a `Cancelled` event follows unless it has ended already."""
        self._command("cancel", job)

    def let_go(self, job: str) -> None:
        """Tell the server that a job of an earlier client is over here."""
        self._command("let go", job)

    def poll(self, limit: int = 100) -> list[object]:
        """At most `limit` of the events that came since, in order: messages of the server other than frames,
        `FramesSaved`, `Interrupted`, `Unsent` and `LinkState`. States of one job that nobody has taken out
        yet replace each other."""
        with self._lock:
            keys = list(self._inbox)[:limit]
            return [self._inbox.pop(key) for key in keys]

    @contextmanager
    def parked(self, timeout: float) -> Iterator[bool]:
        """Hold the thread still while the context is open; the value says whether it is, as a thread that is
        busy for longer than `timeout` seconds goes on."""
        reached, gate = threading.Event(), threading.Lock()
        gate.acquire()
        self._command("park", reached, gate)
        still = not self._thread.is_alive() or reached.wait(timeout)
        time.sleep(0.001)  # from telling that it is there to standing at the gate
        try:
            yield still
        finally:
            gate.release()

    def open_live(self, opening: LiveOpen) -> None:
        """Open a live session, and again whenever the server comes back."""
        self._command("open live", opening)

    def pose_live(self, pose: LivePose) -> None:
        """Have a pose drawn; it takes the place of one that waits."""
        self._command("pose live", pose)

    def close_live(self, session: str) -> None:
        self._command("close live", session)

    def poll_live(self) -> list[LiveAnswer]:
        """What live sessions were answered since the last call, of each the latest picture alone."""
        with self._lock:
            answers = list(self._live_inbox.values())
            self._live_inbox.clear()
        return answers

    def close(self, timeout: float = 2.0, keep: bool = False) -> None:
        """End the thread; what runs is cancelled, unless it is to be kept. What comes of that within
        `LAST_WORDS` can still be taken out. Waits no longer than `timeout` seconds."""
        if self._thread.ident is None:
            self._end()
        elif self._thread.is_alive():
            self._command("close", keep)
            self._thread.join(timeout)

    def _end(self) -> None:
        """Leave ZeroMQ. It may be looking up the name of a server, so not in the main thread once it was told
        to connect."""
        with self._lock:
            self._bell.close(linger=0)
        self._context.term()

    def _command(self, *command) -> None:
        self._commands.put(command)
        with self._lock:
            try:
                self._bell.send(b"", zmq.NOBLOCK)
            except zmq.ZMQError:
                pass  # the thread has more wake-ups waiting than it needs, or it has ended

    # Below: the thread's own.

    def _post(self, event: object) -> None:
        job = getattr(event, "job", "")
        latest = isinstance(event, (Progress, Preview, Queued, FramesSaved, LinkState, Welcome))
        key = (job, type(event)) if latest else (job, type(event), id(event))
        with self._lock:
            self._inbox.pop(key, None)
            self._inbox[key] = event

    def _post_live(self, answer: LiveAnswer) -> None:
        with self._lock:
            self._live_inbox[answer.session, type(answer)] = answer

    def _run(self) -> None:
        try:
            _Connection(self).serve()
        except Exception:
            log.exception("The client's thread ended")
            self._set_link(
                REFUSED,
                say("The connection broke down inside Blender; disable the extension and enable it again."),
            )
            raise
        finally:
            threads.remove(self.parked)
            self._end()

    def _set_link(self, state: str, sentence: str = "") -> None:
        link = LinkState(state, sentence)
        if link != self.link:
            self.link = link
            if state != CONNECTED:
                self.welcome = None
            self._post(link)


class _Connection:
    """The thread's side: sockets and jobs, touched by no other thread."""

    def __init__(self, client: BridgeClient):
        self.client = client
        self.address = Address.parse(client.address)
        self.submissions: dict[str, _Submission] = {}
        self.views: dict[str, LiveView] = {}
        self.sender = Sender(self._send_parts)
        self.goodbyes: dict[str, _Goodbye] = {}
        self.kept: Goodbyes | None = None
        """The same on the disk, once it is known whose they are."""
        self.heard = self.greeted = 0.0
        self.clocks_apart = time.time() - time.monotonic()
        self.attached = False
        self.connecting = self.gave_up = False
        """Whether ZeroMQ is at work on a connection, and has given up as it was refused or met a stranger."""
        self.retry_at = time.monotonic() + RETRY
        self.doubtful, self.locked_out = False, 0
        """Whether the conversation failed to begin, and how often before a server that wants keys."""
        self.closing: float | None = None
        """When to wait no longer for what the server has to confirm."""

    def serve(self) -> None:
        context = self.client._context
        bell = context.socket(zmq.PAIR)
        bell.connect("inproc://bell")
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.IPV6, self.address.is_ipv6)
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
        monitor = dealer.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_CONNECT_RETRIED
            | NO_CONVERSATION
        )
        self.dealer = dealer
        poller = zmq.Poller()
        for socket in (bell, monitor, dealer):
            poller.register(socket, zmq.POLLIN)
        try:
            self._connect()
            while not self._over():
                # Right after the handshake the socket may not take a message yet: try again soon.
                greeting = self.attached and not self.greeted
                hasty = greeting or self.closing is not None
                ready = dict(poller.poll(20 if hasty else int(HEARTBEAT * 500)))
                if bell in ready:
                    bell.recv()
                # Whether it rang or not: a command given before this thread stood by the bell rang nowhere.
                self._obey()
                self._send_live()
                # What a server said before it went must be read before its going is noticed.
                if dealer in ready:
                    self._read_all()
                while monitor.poll(0):
                    self._watch(recv_monitor_message(monitor)["event"])
                self._keep_alive()
        finally:
            dealer.disable_monitor()
            monitor.close(linger=0)
            dealer.close(linger=200)
            bell.close(linger=0)

    def _over(self) -> bool:
        """Whether the thread has been told to end, and has no reason to stay."""
        if self.closing is None:
            return False
        heard = self.attached and self.client.link.state == CONNECTED
        return not (heard and self.goodbyes) or time.monotonic() > self.closing

    def _disconnect(self) -> None:
        if self.connecting:
            self.dealer.disconnect(str(self.address))
        self.connecting = self.gave_up = False

    def _connect(self) -> None:
        """Begin anew to reach the server, with the keys that are there now."""
        address = str(self.address)
        self._disconnect()
        try:
            token = self.client.token or local_token()
        except TokenError as error:
            self._refuse(str(error))
            return
        if token is not None:
            self.kept = Goodbyes(token.account)
            for job in self.kept.jobs():
                if job not in self.submissions:
                    self.goodbyes.setdefault(job, _Goodbye(Cancel(job=job)))
            token.apply_to(self.dealer)
            self.dealer.connect(address)
            self.connecting = True
        elif self._look() == probe.LOCKED:
            self._refuse(
                say(
                    "The server at {address} is not yours; ask who runs it for an invitation, and paste "
                    "its token in the preferences.",
                    address=address,
                )
            )

    def _obey(self) -> None:
        while True:
            try:
                command, *arguments = self.client._commands.get_nowait()
            except Empty:
                return
            if command == "submit":
                request, writer = arguments
                self._drop_goodbye(request.job)
                self.submissions[request.job] = _Submission(request, writer, (request.width, request.height))
                if self.client.link.state == REFUSED:
                    self._refuse(self.client.link.sentence)
                self._send_waiting()
            elif command == "adopt":
                name, writer, size = arguments
                self._drop_goodbye(name)
                self.submissions[name] = _Submission(None, writer, size)
                self._send_waiting()
            elif command == "cancel":
                self._cancel(arguments[0])
            elif command == "let go":
                if arguments[0] not in self.submissions:
                    self._part(Cancel(job=arguments[0]))
            elif command == "open live":
                self.views[arguments[0].session] = LiveView(arguments[0])
            elif command == "pose live":
                if (view := self.views.get(arguments[0].session)) is not None:
                    view.pose = arguments[0]
            elif command == "close live":
                if (view := self.views.pop(arguments[0], None)) is not None and view.opened:
                    self._send(LiveClose(session=arguments[0]))
            elif command == "park":
                reached, gate = arguments
                reached.set()
                gate.acquire()
            elif command == "close":
                for name in [] if arguments[0] else list(self.submissions):
                    self._cancel(name)
                self._send_goodbyes()
                self.closing = time.monotonic() + LAST_WORDS

    def _cancel(self, name: str) -> None:
        submission = self.submissions.get(name)
        if submission is None:
            return
        # The user's wish holds at once, whatever the server makes of it.
        self._end(Cancelled(job=name), Cancel(job=name) if submission.sent else None)

    def _send_live(self) -> None:
        if self.client.link.state != CONNECTED:
            return
        for name, view in list(self.views.items()):
            try:
                if not view.opened:
                    view.opened = self._send(view.opening)
                elif (pose := view.due()) is not None and self._send(pose):
                    view.sent(pose)
            except MessageError as error:
                self._hear_live(LiveEnded(session=name, code="invalid", message=str(error)))

    def _hear_live(self, answer: LiveAnswer) -> None:
        view = self.views.get(answer.session)
        if view is None:
            return
        if isinstance(answer, LiveReady):
            view.ready = True
        elif isinstance(answer, LivePicture):
            view.answered(answer.number)
        elif answer.code == "unknown":
            view.interrupt()  # the server has lost it, and is asked anew
            return
        else:
            del self.views[answer.session]
        self.client._post_live(answer)

    def _part(self, message: Cancel | Received) -> None:
        """Tell the server that a job is over here, as soon and as often as it takes."""
        self.sender.drop(message.job)
        if message.job not in self.goodbyes:
            self.goodbyes[message.job] = _Goodbye(message)
            if self.kept is not None:
                self.kept.add(message.job)
        self._send_goodbyes()

    def _drop_goodbye(self, job: str) -> None:
        """The server has confirmed it, or the job goes on after all."""
        if self.goodbyes.pop(job, None) is not None and self.kept is not None:
            self.kept.remove(job)

    def _send_goodbyes(self) -> None:
        for goodbye in self.goodbyes.values():
            goodbye.told = goodbye.told or self._send(goodbye.message)

    def _send_waiting(self) -> None:
        if self.client.link.state != CONNECTED:
            return
        self._send_goodbyes()
        for name, submission in list(self.submissions.items()):
            if submission.interrupted and not submission.asked:
                submission.asked = self._send(Resume(job=name, have=submission.writer.written))
            if submission.sent:
                continue
            try:
                submission.sent = self._send(submission.request)
            except MessageError as error:
                self._end(Failed(job=name, code="invalid", message=str(error)))

    def _send(self, message: object) -> bool:
        return self.sender.send(message)

    def _send_parts(self, parts: Sequence) -> bool:
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

    def _watch(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.attached = True
            self.locked_out = 0
            self.heard = time.monotonic()
            self.greeted = 0.0
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refuse(
                say(
                    "The server at {address} does not let your key in (any more); ask who runs it for a new "
                    "invitation.",
                    address=self.address,
                )
            )
        elif event == zmq.EVENT_DISCONNECTED and self.attached:
            self._break(say("The connection to the server broke."))
            self._connect()  # by itself ZeroMQ would send what was left to say over the next connection
        elif event == zmq.EVENT_DISCONNECTED:
            self.gave_up = self.doubtful = True
        elif event == zmq.EVENT_CONNECT_RETRIED:
            self.gave_up = False
        elif event & NO_CONVERSATION:
            self.doubtful = True

    def _doubt(self) -> None:
        """A connection came about, but no conversation: find out why."""
        self.doubtful = False
        self._disconnect()  # there may be room for one connection alone
        self.dealer.poll(CLOSING)  # ZeroMQ closes it only while its socket is looked at
        seen = self._look()
        self.locked_out += seen == probe.LOCKED
        if seen == probe.LOCKED and self.locked_out > 1:  # once may have been a server that was just ending
            self._refuse(
                say(
                    "The server at {address} is not the one that your keys are for; ask who runs it for an "
                    "invitation, and paste its token in the preferences.",
                    address=self.address,
                )
            )

    def _look(self) -> str:
        """What listens at the address; refused where it is none of ours."""
        seen = probe.look(self.address)
        if seen == probe.STRANGER:
            self._refuse(self._stranger())
        elif seen == probe.OPEN:
            self._refuse(
                say(
                    "The server at {address} is of an earlier release; install the same release of the "
                    "extension and the server.",
                    address=self.address,
                )
            )
        return seen

    def _slept(self) -> bool:
        """Whether the computer was asleep since this was last asked: only the clock on the wall went on."""
        apart, before = time.time() - time.monotonic(), self.clocks_apart
        self.clocks_apart = apart
        return apart - before > AWAKE

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if self._slept():
            self.heard = min(self.heard, now - SILENCE + AWAKE)
            self.greeted = 0.0
        if self.attached:
            self.sender.pump()
            if now - self.greeted >= HEARTBEAT and self._send(self.client._hello):
                self.greeted = now
            if self.client.link.state != REFUSED and now - self.heard > SILENCE:
                # A connection may be dead without either side knowing, as after a laptop's sleep.
                self._connect()
                self._break(say("The server has not answered for {seconds:.0f} seconds.", seconds=SILENCE))
        elif now >= self.retry_at:
            self.retry_at = now + RETRY
            if self.doubtful:
                self._doubt()
            if self.gave_up or not self.connecting:
                self._connect()

    def _break(self, sentence: str) -> None:
        """The connection is gone. What the server has goes on there; the rest is sent when it is back."""
        self.attached = False
        self.sender.clear()
        for goodbye in self.goodbyes.values():
            goodbye.told = False  # it may not have arrived
        self.client._set_link(CONNECTING, sentence)
        for name, submission in self.submissions.items():
            if submission.sent and not submission.interrupted:
                submission.interrupted, submission.asked = True, False
                self.client._post(Interrupted(name))
            submission.asked = False
        for view in self.views.values():
            view.interrupt()

    def _read_all(self) -> None:
        """Read what is there, but come back for commands at times."""
        for _ in range(64):
            try:
                parts = self.dealer.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self.heard = time.monotonic()
            self._read([part.buffer for part in parts])

    def _read(self, parts: Sequence[memoryview]) -> None:
        try:
            message = wire.decode(parts, messages.SERVER_MESSAGES)
        except wire.VersionError as error:
            self._refuse(str(error))
        except MessageError as error:
            self._distrust(parts, str(error))
        else:
            self._take(message)

    def _take(self, message: Any) -> None:
        if isinstance(message, Welcome):
            self.client.welcome = message
            self.client._set_link(CONNECTED)
            self.client._post(message)
            self._send_waiting()
        elif isinstance(message, More):
            self.sender.hear(message)
        elif isinstance(message, Failed) and message.code == "version":
            self._refuse(message.message)
        elif isinstance(message, Failed) and not message.job:
            self._blame(message)
        elif isinstance(message, messages.LIVE_ANSWERS):
            self._hear_live(message)
        elif (submission := self.submissions.get(message.job)) is None:
            log.debug("A message for a job that has ended: %s", type(message).__name__)
            if isinstance(message, (Cancelled, Forgotten)):
                self._drop_goodbye(message.job)
        elif isinstance(message, Failed) and message.code == "unknown":
            self._begin_anew(message.job, submission)
        elif isinstance(message, Accepted):
            submission.accepted, submission.interrupted = True, False
            self.client._post(message)
        elif submission.interrupted:
            log.debug("A message from before the connection broke: %s", type(message).__name__)
        elif isinstance(message, Frame):
            submission.request = None
            self._save(message, submission)
        elif isinstance(message, Done):
            self._finish(message)
        elif isinstance(message, Failed) and message.code == "elsewhere":
            self._leave(message)
        elif isinstance(message, Cancelled):  # by who runs the server; it has forgotten it
            self._end(message)
        elif isinstance(message, messages.ENDINGS):
            self._end(message, Received(job=message.job))
        elif not isinstance(message, Forgotten):
            if isinstance(message, (Progress, Preview)):
                submission.request = None
            self.client._post(message)

    def _begin_anew(self, name: str, submission: _Submission) -> None:
        """The server lacks a job that it was asked to go on with: it never got it, or it lost it."""
        if submission.request is not None:
            submission.sent = submission.accepted = submission.interrupted = False
            self.client._post(Unsent(name))
            self._send_waiting()
            return
        written = submission.writer.written
        if written == submission.num_frames > 0:  # it was fetched and let go of before
            self._end(Done(job=name, num_frames=written, seconds=0.0))
            return
        message = say("The server does not have this any more; start it again.")
        if written:
            message = say(
                "The server does not have this clip any more ({written} of {total} frames arrived and are "
                "kept); generate it again.",
                written=written,
                total=submission.num_frames,
            )
        self._end(Failed(job=name, code="worker", message=message))

    def _blame(self, failed: Failed) -> None:
        """The server could not even read whose message it was: it was the oldest that it has not accepted."""
        unread = [
            name
            for name, submission in self.submissions.items()
            if submission.sent and not submission.accepted
        ]
        if unread:
            self._end(Failed(job=unread[0], code=failed.code, message=failed.message))
        else:
            log.warning("The server says: %s", failed.message)

    def _save(self, frame: Frame, submission: _Submission) -> None:
        writer = submission.writer
        if frame.index < writer.written:
            return  # it was on its way when the connection broke, and was sent again
        if frame.index > writer.written and submission.gaps < MOST_GAPS:
            submission.gaps += 1
            submission.interrupted = True
            submission.asked = self._send(Resume(job=frame.job, have=writer.written))
            return
        if frame.index != writer.written or frame.index >= writer.num_frames or frame.format != "png":
            self._give_up(
                frame.job,
                say(
                    "The server sent a frame that was not the one expected; install the same release of the "
                    "extension and the server, and generate again."
                ),
            )
            return
        if not _is_picture(frame.data, submission.size):
            self._give_up(
                frame.job,
                say(
                    "The server sent a frame that is no PNG picture of the clip's size; install the same "
                    "release of the extension and the server, and generate again."
                ),
            )
            return
        try:
            writer.write(frame.data)
        except WriteError as error:
            if error.passing:
                self._leave(Failed(job=frame.job, code="elsewhere", message=str(error)))
            else:
                self._give_up(frame.job, str(error))
            return
        self.client._post(FramesSaved(frame.job, writer.written))

    def _finish(self, done: Done) -> None:
        submission, received = self.submissions[done.job], Received(job=done.job)
        if submission.writer.written < submission.num_frames:
            message = say(
                "The server ended the clip after {written} of {total} frames (they are kept); generate "
                "again.",
                written=submission.writer.written,
                total=submission.num_frames,
            )
            self._end(Failed(job=done.job, code="internal", message=message), received)
        else:
            self._end(done, received)

    def _distrust(self, parts: Sequence[memoryview], sentence: str) -> None:
        """A message that can't be read: it costs the job it names, if it names one."""
        log.warning("An unreadable message came from %s: %s", self.client.address, sentence)
        try:
            name = wire.read_header(parts).get("job")
        except MessageError:
            name = None
        if isinstance(name, str) and name in self.submissions:
            self._give_up(
                name, say("The server sent something that can't be used: {sentence}", sentence=sentence)
            )
        elif self.client.link.state != CONNECTED:
            self._refuse(self._stranger())

    def _stranger(self) -> str:
        return say(
            "What answers at {address} is not a PoseAnything server; choose another address.",
            address=self.client.address,
        )

    def _refuse(self, sentence: str) -> None:
        """The server can't be used. What it has already waits for a server that can."""
        self.client._set_link(REFUSED, sentence)
        for name in [name for name, submission in self.submissions.items() if not submission.sent]:
            self._end(Failed(job=name, code="version", message=sentence))
        for name in list(self.views):
            self._hear_live(LiveEnded(session=name, code="version", message=sentence))

    def _leave(self, reason: Failed) -> None:
        """Nothing is over, and the server must not be told that it is: the rest can be fetched there."""
        self.submissions.pop(reason.job)
        self.client._post(reason)

    def _give_up(self, name: str, sentence: str) -> None:
        """End a job from this side and spare the server the rest of it."""
        self._end(Failed(job=name, code="internal", message=sentence), Cancel(job=name))

    def _end(self, ending: Done | Failed | Cancelled, goodbye: Cancel | Received | None = None) -> None:
        """A job is over here. The server is told `goodbye`, unless it keeps nothing of the job."""
        self.submissions.pop(ending.job, None)
        if goodbye is not None:
            self._part(goodbye)  # before anybody hears of the end: nothing else tells of the job from then on
        self.client._post(ending)


def _is_picture(data: bytes | memoryview, size: tuple[int, int]) -> bool:
    """Whether data begin and end as an RGB PNG of 8 bits that has a size, and are no more than that needs."""
    view = memoryview(data)
    width, height = size
    most = 3 * width * height * 1001 // 1000 + height + 65536
    rgb, end = bytes((8, 2, 0, 0, 0)), b"\0\0\0\0IEND\xaeB`\x82"
    return (
        messages.png_size(view) == size and view[24:29] == rgb and view[-12:] == end and view.nbytes <= most
    )
