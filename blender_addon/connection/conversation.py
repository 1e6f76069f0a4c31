"""What is said over the link, and what it means for the jobs: the client's thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Lock
from typing import Any

import zmq

from ..shared import messages, wire
from ..shared.address import Address
from ..shared.keys import Token
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
    LiveOpen,
    LivePose,
    More,
    PoseRequest,
    Preview,
    Progress,
    Received,
    Resume,
    Welcome,
)
from ..shared.pieces import Sender
from ..shared.schema import MessageError
from ..takes.writer import NoFrames, TakeWriter, WriteError
from ..texts import say
from .events import CONNECTED, CONNECTING, REFUSED, FramesSaved, Inbox, Interrupted, Unsent
from .goodbyes import Unconfirmed
from .link import Link, stranger
from .live import LiveViews

log = logging.getLogger(__name__)

MOST_GAPS = 3
"""How often a job may be asked for anew because a frame is missing."""
LAST_WORDS = 1.0
"""Seconds for which a client that is closed waits for what the server has yet to confirm."""


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


class Conversation:
    """The thread's own: jobs and what is said of them, touched by no other thread.

    Args:
        context: ZeroMQ's.
        address: where the server listens.
        token: see `Link`.
        hello: what the client is called.
        commands: what the main thread wants: calls of the methods below, each taken after a ring at
            `inproc://bell`.
        inbox: takes what the main thread is to hear.
    """

    def __init__(
        self,
        context: zmq.Context,
        address: Address,
        token: Token | None,
        hello: Hello,
        commands: SimpleQueue[Callable[[Conversation], None]],
        inbox: Inbox,
    ):
        self._context, self._address, self._commands, self._inbox = context, address, commands, inbox
        self._link = Link(context, address, token, hello, self)
        self._sender = Sender(self._link.send)
        self._goodbyes = Unconfirmed(self._sender.send)
        self._views = LiveViews(self._sender.send, inbox.post_live)
        self._submissions: dict[str, _Submission] = {}
        self._closing: float | None = None
        """When to wait no longer for what the server has to confirm."""

    def hold(self) -> None:
        """Keep the conversation up until it is closed."""
        link, bell = self._link, self._context.socket(zmq.PAIR)
        bell.connect("inproc://bell")
        poller = zmq.Poller()
        for socket in (bell, link.monitor, link.dealer):
            poller.register(socket, zmq.POLLIN)
        try:
            link.connect()
            while not self._over():
                ready = dict(poller.poll(link.pause if self._closing is None else 20))
                if bell in ready:
                    bell.recv()
                # Whether it rang or not: a command given before this thread stood by the bell rang nowhere.
                self._obey()
                if self._connected:
                    self._views.send()
                # What a server said before it went must be read before its going is noticed.
                if link.dealer in ready:
                    self._read_all()
                link.watch()
                link.keep_alive()
                self._sender.pump()
                if self._inbox.link.state != REFUSED:
                    link.give_up_if_silent()
        finally:
            link.close()
            bell.close(linger=0)

    @property
    def _connected(self) -> bool:
        return self._inbox.link.state == CONNECTED

    def _over(self) -> bool:
        """Whether the thread has been told to end, and has no reason to stay."""
        if self._closing is None:
            return False
        heard = self._link.attached and self._connected
        return not (heard and self._goodbyes) or time.monotonic() > self._closing

    # What the main thread wants

    def submit(self, request: GenerationRequest | PoseRequest, writer: TakeWriter | NoFrames) -> None:
        self._goodbyes.drop(request.job)
        self._submissions[request.job] = _Submission(request, writer, (request.width, request.height))
        if self._inbox.link.state == REFUSED:
            self.link_refused(self._inbox.link.sentence)
        self._send_waiting()

    def adopt(self, job: str, writer: TakeWriter | NoFrames, size: tuple[int, int]) -> None:
        self._goodbyes.drop(job)
        self._submissions[job] = _Submission(None, writer, size)
        self._send_waiting()

    def cancel(self, job: str) -> None:
        submission = self._submissions.get(job)
        if submission is None:
            return
        # The user's wish holds at once, whatever the server makes of it.
        self._end(Cancelled(job=job), Cancel(job=job) if submission.sent else None)

    def let_go(self, job: str) -> None:
        if job not in self._submissions:
            self._part(Cancel(job=job))

    def open_live(self, opening: LiveOpen) -> None:
        self._views.open(opening)

    def pose_live(self, pose: LivePose) -> None:
        self._views.pose(pose)

    def close_live(self, session: str) -> None:
        self._views.close(session)

    def park(self, reached: Event, gate: Lock) -> None:
        """Stand still until the gate opens."""
        reached.set()
        gate.acquire()

    def close(self, keep: bool) -> None:
        for job in [] if keep else list(self._submissions):
            self.cancel(job)
        self._goodbyes.send()
        self._closing = time.monotonic() + LAST_WORDS

    def _obey(self) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except Empty:
                return
            command(self)

    # What becomes of the link

    def link_has_keys(self, token: Token) -> None:
        """See `Listener`."""
        self._goodbyes.keep(token.account, unless=self._submissions)

    def link_broke(self, sentence: str) -> None:
        """What the server has goes on there; the rest is sent when it is back."""
        self._sender.clear()
        self._goodbyes.interrupt()
        self._inbox.set_link(CONNECTING, sentence)
        for job, submission in self._submissions.items():
            if submission.sent and not submission.interrupted:
                submission.interrupted = True
                self._inbox.post(Interrupted(job))
            submission.asked = False
        self._views.interrupt()

    def link_refused(self, sentence: str) -> None:
        """The server can't be used. What it has already waits for a server that can."""
        self._inbox.set_link(REFUSED, sentence)
        for job in [job for job, submission in self._submissions.items() if not submission.sent]:
            self._end(Failed(job=job, code="version", message=sentence))
        self._views.refuse(sentence)

    # What is said to the server

    def _send_waiting(self) -> None:
        if not self._connected:
            return
        self._goodbyes.send()
        for job, submission in list(self._submissions.items()):
            if submission.interrupted and not submission.asked:
                submission.asked = self._sender.send(Resume(job=job, have=submission.writer.written))
            if submission.sent:
                continue
            try:
                submission.sent = self._sender.send(submission.request)
            except MessageError as error:
                self._end(Failed(job=job, code="invalid", message=str(error)))

    def _part(self, goodbye: Cancel | Received) -> None:
        """Tell the server that a job is over here, as soon and as often as it takes."""
        self._sender.drop(goodbye.job)
        self._goodbyes.add(goodbye)

    # What the server says

    def _read_all(self) -> None:
        """Read what is there, but come back for commands at times."""
        for _ in range(64):
            if (parts := self._link.receive()) is None:
                return
            self._read(parts)

    def _read(self, parts: Sequence[memoryview]) -> None:
        try:
            message = wire.decode(parts, messages.SERVER_MESSAGES)
        except wire.VersionError as error:
            self.link_refused(str(error))
        except MessageError as error:
            self._distrust(parts, str(error))
        else:
            self._take(message)

    def _take(self, message: Any) -> None:
        if isinstance(message, Welcome):
            self._inbox.welcome = message
            self._inbox.set_link(CONNECTED)
            self._inbox.post(message)
            self._send_waiting()
        elif isinstance(message, More):
            self._sender.hear(message)
        elif isinstance(message, Failed) and message.code == "version":
            self.link_refused(message.message)
        elif isinstance(message, Failed) and not message.job:
            self._blame(message)
        elif isinstance(message, messages.LIVE_ANSWERS):
            self._views.hear(message)
        elif (submission := self._submissions.get(message.job)) is None:
            log.debug("A message for a job that has ended: %s", type(message).__name__)
            if isinstance(message, (Cancelled, Forgotten)):
                self._goodbyes.drop(message.job)
        else:
            self._take_of(submission, message)

    def _take_of(self, submission: _Submission, message: Any) -> None:
        """A message of a job that goes on here."""
        if isinstance(message, Failed) and message.code == "unknown":
            self._begin_anew(message.job, submission)
        elif isinstance(message, Accepted):
            submission.accepted, submission.interrupted = True, False
            self._inbox.post(message)
        elif submission.interrupted:
            log.debug("A message from before the connection broke: %s", type(message).__name__)
        elif isinstance(message, Frame):
            submission.request = None
            self._save(message, submission)
        elif isinstance(message, Done):
            self._finish(message, submission)
        elif isinstance(message, Failed) and message.code == "elsewhere":
            self._leave(message)
        elif isinstance(message, Cancelled):  # by who runs the server; it has forgotten it
            self._end(message)
        elif isinstance(message, messages.ENDINGS):
            self._end(message, Received(job=message.job))
        elif not isinstance(message, Forgotten):
            if isinstance(message, (Progress, Preview)):
                submission.request = None
            self._inbox.post(message)

    def _begin_anew(self, job: str, submission: _Submission) -> None:
        """The server lacks a job that it was asked to go on with: it never got it, or it lost it."""
        if submission.request is not None:
            submission.sent = submission.accepted = submission.interrupted = False
            self._inbox.post(Unsent(job))
            self._send_waiting()
            return
        written = submission.writer.written
        if written == submission.num_frames > 0:  # it was fetched and let go of before
            self._end(Done(job=job, num_frames=written, seconds=0.0))
            return
        message = say("The server does not have this any more; start it again.")
        if written:
            message = say(
                "The server does not have this clip any more ({written} of {total} frames arrived and are "
                "kept); generate it again.",
                written=written,
                total=submission.num_frames,
            )
        self._end(Failed(job=job, code="worker", message=message))

    def _blame(self, failed: Failed) -> None:
        """The server could not even read whose message it was: it was the oldest that it has not accepted."""
        unread = [
            job
            for job, submission in self._submissions.items()
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
            submission.asked = self._sender.send(Resume(job=frame.job, have=writer.written))
        elif frame.index != writer.written or frame.index >= writer.num_frames or frame.format != "png":
            self._give_up(
                frame.job,
                say(
                    "The server sent a frame that was not the one expected; install the same release of the "
                    "extension and the server, and generate again."
                ),
            )
        elif not _is_picture(frame.data, submission.size):
            self._give_up(
                frame.job,
                say(
                    "The server sent a frame that is no PNG picture of the clip's size; install the same "
                    "release of the extension and the server, and generate again."
                ),
            )
        else:
            self._write(frame, writer)

    def _write(self, frame: Frame, writer: TakeWriter | NoFrames) -> None:
        try:
            writer.write(frame.data)
        except WriteError as error:
            if error.passing:
                self._leave(Failed(job=frame.job, code="elsewhere", message=str(error)))
            else:
                self._give_up(frame.job, str(error))
        else:
            self._inbox.post(FramesSaved(frame.job, writer.written))

    def _finish(self, done: Done, submission: _Submission) -> None:
        received = Received(job=done.job)
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
        log.warning("An unreadable message came from %s: %s", self._address, sentence)
        try:
            name = wire.read_header(parts).get("job")
        except MessageError:
            name = None
        if isinstance(name, str) and name in self._submissions:
            self._give_up(
                name, say("The server sent something that can't be used: {sentence}", sentence=sentence)
            )
        elif not self._connected:
            self.link_refused(stranger(self._address))

    def _leave(self, reason: Failed) -> None:
        """Nothing is over, and the server must not be told that it is: the rest can be fetched there."""
        self._submissions.pop(reason.job)
        self._inbox.post(reason)

    def _give_up(self, job: str, sentence: str) -> None:
        """End a job from this side and spare the server the rest of it."""
        self._end(Failed(job=job, code="internal", message=sentence), Cancel(job=job))

    def _end(self, ending: Done | Failed | Cancelled, goodbye: Cancel | Received | None = None) -> None:
        """A job is over here. The server is told `goodbye`, unless it keeps nothing of the job."""
        self._submissions.pop(ending.job, None)
        if goodbye is not None:
            self._part(goodbye)  # before anybody hears of the end: nothing else tells of the job from then on
        self._inbox.post(ending)


def _is_picture(data: bytes | memoryview, size: tuple[int, int]) -> bool:
    """Whether data begin and end as an RGB PNG of 8 bits that has a size, and are no more than that needs."""
    view = memoryview(data)
    width, height = size
    most = 3 * width * height * 1001 // 1000 + height + 65536
    rgb, end = bytes((8, 2, 0, 0, 0)), b"\0\0\0\0IEND\xaeB`\x82"
    return (
        messages.png_size(view) == size and view[24:29] == rgb and view[-12:] == end and view.nbytes <= most
    )
