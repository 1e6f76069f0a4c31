"""The broker: a loop that takes requests, queues them, hands them to workers and passes on what those make.

A job's way: `Accepted`, `Queued` whenever its turn comes closer, then everything its worker says about it,
word for word, up to one of `Done`, `Failed` and `Cancelled`. The loop itself never blocks on anybody. Frames
and endings go to the store first and from there to the client, as it takes them: a client that is slow, away
or gone holds up nobody, and finds all of it when it asks (`Resume`).

A job whose worker dies is made once more; so is one whose server dies. What was sent before stays as it is.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from shared import messages, wire
from shared.keys import LOCAL_NAME
from shared.messages import (
    CLIENT_MESSAGES,
    ENDINGS,
    JOBS,
    Accepted,
    Cancel,
    Cancelled,
    Failed,
    Frame,
    FrameRequest,
    GenerationRequest,
    Hello,
    LiveClose,
    LiveOpen,
    LivePose,
    PoseRequest,
    Progress,
    Queued,
    Received,
    Resume,
    StatusRequest,
    Welcome,
)
from shared.schema import MessageError

from .. import __version__
from . import ServerError
from .descriptors import raise_descriptor_limit
from .frontend import Client, Frontend
from .keys import KeyRing
from .limits import Refusal, check_pose_finder, check_request
from .live import LiveDesk, session_named
from .process import private_folder
from .queue import POSES, FairQueue, PendingRequest, QueueFull
from .settings import Settings
from .slots import Crew, WorkerSlot, choose
from .status import describe, survey
from .store import JobStore, StoreFull, content_digest, is_scarcity

log = logging.getLogger(__name__)

READABLE = tuple(kind for kind in CLIENT_MESSAGES if kind is not messages.Piece)
"""Pieces are put together by the front end; a piece made of pieces is nothing."""
MESSAGES_PER_TURN = 100
TURN = 0.01
"""Seconds after which clients are heard no further in one turn."""
SMALL = 4096
"""Bytes of a message that is read by the loop itself, as unpacking it can't take long."""
MOST_BACKLOG = 320 << 20
"""Bytes of a user's messages that wait to be read."""
FORGET_AFTER = 3600.0
"""Seconds of silence after which nothing is kept of a client; its jobs stay."""
REFRESH_AFTER = 5.0
"""Seconds after which an idle worker is asked anew what its engines can do (weights may have come)."""
MAX_DEATHS = 2
"""A job that has ended so many processes is set aside."""
MAX_DEATHS_OF_SERVERS = 3
"""Where the server itself ended each time, which may have had other reasons."""
FRAMES_PER_TURN = 8
"""Read from the store and sent to one client before others are looked after."""
TIDY_AFTER = 60.0
"""Seconds between two looks for what was never fetched."""
ASLEEP = 5.0
"""A turn that comes so many seconds after the last shows that this process itself stood still."""

_ENDINGS = frozenset(cls.__name__ for cls in ENDINGS)


@dataclass
class Backlog:
    """What of a user's messages waits to be read; the first is just being read."""

    messages: deque[tuple[Client, Sequence[memoryview]]] = field(default_factory=deque)
    bytes: int = 0


class Broker:
    def __init__(self, settings: Settings):
        """Binds the front end. Raises `ServerError`."""
        self.settings = settings
        raise_descriptor_limit()
        self._context = zmq.Context()
        try:
            self._keys = KeyRing(Path(settings.keys))
            self._frontend = Frontend(self._context, settings.address, self._keys, settings.max_connections)
        except ServerError:
            self._context.term()
            raise
        self.endpoint = self._frontend.endpoint
        self._stopping = self._finishing = False
        self._reader = ThreadPoolExecutor(1, "reader")
        self._backlogs: dict[bytes, Backlog] = {}
        self._read: deque[tuple[bytes, messages.Checked | Exception]] = deque()
        self._bell, self._bell_pull = socket.socketpair()
        self._bell.setblocking(False)
        self._queue = FairQueue(settings.max_jobs, settings.max_jobs_per_user)
        self._jobs: dict[tuple[bytes, str], PendingRequest] = {}
        self._behind: dict[PendingRequest, None] = {}
        """Jobs that have something for their client which is not sent yet, in order."""
        self._announced: tuple[int, bool] | None = None
        """The order of turns that everybody has been told."""
        self._folder = private_folder()
        try:
            jobs = Path(settings.jobs or Path(self._folder.name) / "jobs")
            self._store = JobStore(jobs, settings.jobs_quota)
        except ServerError:
            self._frontend.close()
            self._context.term()
            self._folder.cleanup()
            raise
        self._live = LiveDesk(self._context, settings, self._folder.name, self._ring, self._frontend)
        self._restore()
        self._crew = Crew(self._context, settings, self._folder.name, self._ring)
        self._engines = self._crew.engines
        self._swept = self._turned = self._tidied = time.monotonic()
        self._described = 0.0

    def _restore(self) -> None:
        """Take up the jobs of a server that ended."""
        stored = self._store.jobs()
        # What ran comes first again, as far as its client's turn goes.
        for one in sorted(stored, key=lambda one: (one.state != "running", one.number)):
            pending = PendingRequest(
                one.client, one.id, one.engine, one.number, frames=one.frames, sent=one.frames
            )
            pending.about = one.about
            self._jobs[pending.user, pending.job] = pending
            if one.state == "ended":
                try:
                    pending.ending, pending.told = self._store.ending(one.number), True
                except (OSError, ValueError) as error:
                    log.error("How job %r ended can't be read (%s); it is dropped", pending.job, error)
                    del self._jobs[pending.user, pending.job]
                    self._store.forget(one.number)
                continue
            ran = one.state == "running"
            if ran and self._store.count_death(one.number, "server") >= MAX_DEATHS_OF_SERVERS:
                reason = (
                    f"The server ended {MAX_DEATHS_OF_SERVERS} times while this clip was made, so it was set "
                    "aside; choose a smaller size or fewer frames and generate again."
                )
                self._end(pending, wire.encode(Failed(job=pending.job, code="worker", message=reason)))
            else:
                self._queue.add(pending)
        if stored:
            log.info("Took up %d jobs, of which %d wait", len(stored), len(self._queue))

    def stop(self) -> None:
        """End the loop; may be called from any thread and from a signal handler."""
        self._stopping = True
        self._ring()

    def finish(self) -> None:
        """End the loop once no job waits or runs and nobody is connected, if a folder keeps what was
        not fetched; else at once."""
        self._finishing = True
        if self.settings.jobs is None:
            self._stopping = True
        self._ring()

    @property
    def _finished(self) -> bool:
        at_work = any(pending.ending is None for pending in self._jobs.values())
        return self._finishing and not at_work and not self._frontend.connected

    def _ring(self) -> None:
        try:
            self._bell.send(b"!")
        except BlockingIOError:
            pass  # it rings already

    def run(self, on_ready: Callable[[str], None]) -> None:
        """Serve until `stop`; `on_ready` gets the address once a worker is ready. Raises `ServerError`."""
        announced = False
        try:
            while not (self._stopping or self._finished):
                self._turn()
                if self._engines and not announced:
                    announced = True
                    on_ready(self.endpoint)
        finally:
            self._close()

    def _turn(self) -> None:
        self._crew.keep(time.monotonic())
        ready = self._poll()
        now = time.monotonic()
        if self._bell_pull.fileno() in ready:
            self._bell_pull.recv(4096)
        for slot in self._crew.slots:
            self._serve_slot(slot, ready, now)
        if now - self._turned > ASLEEP:
            self._live.excuse(now)
        self._turned = now
        if self._live.socket in ready:
            self._live.hear(now)
        self._live.look_after(now)
        self._heed_read(now)
        if self._frontend.socket in ready:
            end = time.monotonic() + TURN
            for _ in range(MESSAGES_PER_TURN):
                if time.monotonic() > end:
                    break
                received = self._frontend.receive(now)
                if received is None:
                    break
                client, parts = received
                if client is not None:
                    self._hear_client(client, parts, now)
        self._frontend.watch()
        self._frontend.cut_off_endless(now)
        self._look_after_clients(now)
        self._dispatch()
        self._frontend.flush()
        self._deliver()

    def _serve_slot(self, slot: WorkerSlot, ready: dict, now: float) -> None:
        """Hear a worker, and see to what its end leaves behind."""
        worker = slot.process
        if worker is None:
            return
        if slot.unkept:
            self._keep_frame(slot, *slot.unkept, now)
        if worker.socket in ready:
            for _ in range(MESSAGES_PER_TURN):
                parts = None if slot.unkept else worker.receive(now)
                if parts is None:
                    break
                self._hear_worker(slot, parts, now)
        if slot.unkept or now - self._turned > ASLEEP:
            worker.heard = now
        if worker.exit_code is not None:
            self._bury_worker(slot, now)

    def _poll(self) -> dict:
        """Wait until there is something to do. Clients are not heard before a worker has told what it can."""
        poller = zmq.Poller()
        poller.register(self._bell_pull, zmq.POLLIN)
        poller.register(self._frontend.monitor, zmq.POLLIN)
        if self._engines:
            poller.register(self._frontend.socket, zmq.POLLIN)
        for slot in self._crew.slots:
            if slot.process and not slot.unkept:
                poller.register(slot.process.socket, zmq.POLLIN)
        if self._live.socket:
            poller.register(self._live.socket, zmq.POLLIN)
        if any(map(self._ready_taker, self._behind)):
            return dict(poller.poll(0))
        if self._frontend.blocked:
            pause = 20
        elif self._crew.restless:
            pause = 100
        else:  # nothing tells of a message that does not end but a look at who is connected
            pause = 250 if self._frontend.connected else 1000
        return dict(poller.poll(pause))

    def _ready_taker(self, pending: PendingRequest) -> Client | None:
        """Its client, where that takes the next frame right now."""
        client = pending.taker
        return client if client and not (client.away or client.gone or client.outbox) else None

    def _say(self, pending: PendingRequest, message: messages.Checked, keep: bool = True) -> bool:
        """False where the client is not there, or busy with what must be kept."""
        client = pending.taker
        return client is not None and not client.gone and self._frontend.send(client, message, keep)

    def _deliver(self) -> None:
        """Send what clients take of the frames and endings that wait in the store."""
        for pending in list(self._behind):
            for _ in range(FRAMES_PER_TURN):
                try:
                    if (client := self._ready_taker(pending)) is None or not self._deliver_next(
                        pending, client
                    ):
                        break
                except OSError as error:
                    log.warning("Frames of job %r can't be read for now: %s", pending.job, error)
                    return

    def _deliver_next(self, pending: PendingRequest, client: Client) -> bool:
        """Send the next of a job's frames, or its ending; false when there is nothing more for now."""
        if pending.sent < pending.frames:
            try:
                parts = self._store.frame(pending.number, pending.sent)
            except ValueError as error:
                self._lose_frames(pending, pending.sent, str(error))
                return True
            pending.sent += 1
            self._frontend.forward(client, parts, pending.job, keep=True, is_frame=True)
            return True
        self._behind.pop(pending, None)
        if pending.ending is not None and not pending.told:
            pending.told = True
            self._frontend.forward(client, pending.ending, pending.job, keep=True)
        return False

    def _lose_frames(self, pending: PendingRequest, index: int, reason: str) -> None:
        """The frames from one on can't be read any more: they are made again as long as their job runs, else
        it has failed."""
        log.error("Job %r: %s", pending.job, reason)
        pending.frames = index
        if pending.ending is not None:
            reason = "Frames of this clip were damaged on the server's disk; generate it again."
            pending.ending = wire.encode(Failed(job=pending.job, code="internal", message=reason))
            self._store.end(pending.number, pending.ending)

    # What clients say

    def _hear_client(self, client: Client, buffers: Sequence[memoryview], now: float) -> None:
        """Read what is small at once; the rest is read beside the loop, each user's in order."""
        backlog = self._backlogs.get(client.user)
        size = sum(map(len, buffers))
        if backlog is None and size <= SMALL:
            self._heed(client, buffers, _read_message(buffers), now)
            return
        if backlog is None:
            backlog = self._backlogs[client.user] = Backlog()
        if backlog.bytes + size > MOST_BACKLOG:
            log.warning("Client %s says more than can be read; hanging up", client)
            self._frontend.hang_up(client)
            return
        backlog.messages.append((client, buffers))
        backlog.bytes += size
        if len(backlog.messages) == 1:
            self._read_next(client.user)

    def _read_next(self, user: bytes) -> None:
        def tell(future: Future) -> None:
            self._read.append((user, future.result()))
            self._ring()

        _, buffers = self._backlogs[user].messages[0]
        self._reader.submit(_read_message, buffers).add_done_callback(tell)

    def _heed_read(self, now: float) -> None:
        """Heed the messages that have been read."""
        while self._read:
            user, read = self._read.popleft()
            backlog = self._backlogs[user]
            client, buffers = backlog.messages.popleft()
            backlog.bytes -= sum(map(len, buffers))
            self._heed(client, buffers, read, now)
            if backlog.messages:
                self._read_next(user)
            else:
                del self._backlogs[user]

    def _heed(self, client: Client, buffers: Sequence[memoryview], message: Any, now: float) -> None:
        """Do what a message says; `message` is what made it unreadable, where it was."""
        if isinstance(message, wire.VersionError):
            self._refuse(client, self._job_named(client, buffers), "version", str(message))
        elif isinstance(message, MessageError):
            if (session := self._session_named(buffers)) is not None:
                self._live.refuse(client, session, "invalid", str(message))
            else:
                self._refuse(client, self._job_named(client, buffers), "invalid", str(message))
        elif isinstance(message, Exception):  # a fault of ours: it must not end the others' jobs
            log.error("A message of client %s was not understood", client, exc_info=message)
            reason = "The server could not read this message; report it with the server's log."
            self._refuse(client, "", "internal", reason)
        else:
            if isinstance(message, Hello):
                self._welcome(client, now)
            elif isinstance(message, JOBS):
                self._accept(client, message, buffers)
            elif isinstance(message, Resume):
                self._resume(client, message)
            elif isinstance(message, LivePose):
                self._live.pose(client, message)
            elif isinstance(message, LiveOpen):
                self._live.open(client, message, self._engines)
            elif isinstance(message, LiveClose):
                self._live.close(client, message.session)
            elif isinstance(message, StatusRequest):
                self._tell_status(client, message.most, now)
            elif isinstance(message, FrameRequest):
                self._send_frame(client, message)
            elif isinstance(message, Received):
                if (pending := self._jobs.get((client.user, message.job))) is not None:
                    self._forget_job(pending)
            elif (pending := self._job_seen_by(client, message.job)) is None:
                pass
            elif pending.ending is None:
                self._cancel(pending, Cancelled(job=message.job), now)
            else:
                self._forget_job(pending)

    def _job_named(self, client: Client, buffers: Sequence[memoryview]) -> str:
        """The job that a refused message names; empty where it names none, or one that goes on."""
        try:
            job = messages.JobId.check(wire.read_header(buffers).get("job"), "job")
        except MessageError:
            return ""
        return "" if (client.user, job) in self._jobs else job

    def _session_named(self, buffers: Sequence[memoryview]) -> str | None:
        """The live session that a refused message names; None where it names none."""
        try:
            return messages.JobId.check(session_named(wire.read_header(buffers)), "session")
        except MessageError:
            return None

    def _refuse(self, client: Client, job: str, code: str, reason: str) -> None:
        level = logging.DEBUG if client.refused else logging.WARNING
        log.log(level, "Refused a message of client %s: %s", client, reason)
        client.refused = True
        self._frontend.send(client, Failed(job=job, code=code, message=reason[:2048]), keep=False)

    def _welcome(self, client: Client, now: float) -> None:
        engines = tuple(self._engines.values())
        at_work = sum(pending.ending is None for pending in self._jobs.values())
        welcome = Welcome(
            server_version=__version__,
            engines=engines,
            device=self._crew.device,
            jobs=at_work,
            pose_finder=self._crew.pose_finder,
        )
        if all(message.job is not None for message in client.outbox):  # else one waits there already
            self._frontend.send(client, welcome)
        if now - self._described > REFRESH_AFTER:
            self._described = now
            for slot in self._crew.slots:
                if slot.process and slot.process.idle:
                    slot.process.send(wire.encode(Hello()))

    def _accept(
        self, client: Client, request: GenerationRequest | PoseRequest, parts: Sequence[memoryview]
    ) -> None:
        known = self._jobs.get((client.user, request.job))
        if known is not None:
            if self._store.job(known.number).digest == content_digest(parts):
                self._resume(client, Resume(job=request.job, have=0))
                return
            reason = f"The job {request.job!r} is at work already; give each job an id of its own."
            self._refuse(client, "", "invalid", reason)
            return
        try:
            if isinstance(request, GenerationRequest):
                check_request(request, self._engines)
                engine, model = request.engine, self._model_of(request)
            else:
                check_pose_finder(self._crew.pose_finder)
                engine, model = POSES, None
            self._queue.require_room(client.user)
            for job in self._store.in_the_way(sum(part.nbytes for part in parts)):
                log.warning("Job %r, which nobody has fetched, makes room for a new one", job.id)
                self._forget_job(self._jobs[job.client, job.id])
            stored = self._store.add(client.user, request.job, engine, parts, describe(request))
        except Refusal as error:
            self._refuse(client, request.job, error.code, str(error))
        except (QueueFull, StoreFull) as error:
            self._refuse(client, request.job, "full", str(error))
        else:
            pending = PendingRequest(client.user, request.job, engine, stored.number, client)
            pending.model, pending.about = model, stored.about
            self._jobs[pending.user, pending.job] = pending
            self._queue.add(pending)
            log.info("Job %r of client %s: %s of %s", pending.job, client, pending.engine, _length(request))
            self._say(pending, Accepted(job=pending.job))

    def _resume(self, client: Client, message: Resume) -> None:
        """Go on with a job where its client says that it is."""
        pending = self._jobs.get((client.user, message.job))
        if pending is None:
            reason = "The server does not have this job (any more); generate this clip again."
            self._frontend.send(client, Failed(job=message.job, code="unknown", message=reason))
            return
        if (before := pending.taker) is not None:
            self._frontend.discard(before, pending.job)
            if before is not client and not (before.away or before.gone):
                reason = "Another program of yours fetches this clip now."
                self._frontend.send(
                    before, Failed(job=pending.job, code="invalid", message=reason), keep=False
                )
        pending.taker = client
        self._say(pending, Accepted(job=pending.job))
        pending.sent, pending.told, pending.position = min(message.have, pending.frames), False, None
        self._announced = None
        self._behind[pending] = None

    def _job_seen_by(self, client: Client, job: str) -> PendingRequest | None:
        """One of the client's own; for who runs the server anybody's."""
        own = self._jobs.get((client.user, job))
        if own is None and client.name == LOCAL_NAME:
            return next((pending for (_, name), pending in self._jobs.items() if name == job), None)
        return own

    def _tell_status(self, client: Client, most: int, now: float) -> None:
        status = survey(
            list(self._jobs.values()),
            self._queue,
            self._crew.slots,
            self._frontend.clients.values(),
            (self._store.bytes, self._store.quota_bytes),
            lambda user: user == client.user or client.name == LOCAL_NAME,
            lambda user: self._keys.name_of(user) or "(revoked)",
            now,
            most,
        )
        self._frontend.send(client, status, keep=False)

    def _send_frame(self, client: Client, message: FrameRequest) -> None:
        """A frame that was asked for by itself; who takes the job's frames as they come still gets them."""
        pending = self._job_seen_by(client, message.job)
        if pending is not None and message.index < pending.frames:
            try:
                parts = self._store.frame(pending.number, message.index)
            except OSError as error:
                log.warning("Frames of job %r can't be read for now: %s", pending.job, error)
                return
            except ValueError as error:
                self._lose_frames(pending, message.index, str(error))
            else:
                self._frontend.forward(client, parts, message.job, keep=False, is_frame=False)
                return
        reason = "The server does not have this frame."
        self._frontend.send(client, Failed(job=message.job, code="unknown", message=reason), keep=False)

    def _look_after_clients(self, now: float) -> None:
        """Once a second: stop writing to clients that are gone, and drop what nobody has fetched."""
        pause, settings = now - self._swept, self.settings
        if pause < min(1.0, settings.client_timeout / 4):
            return
        self._swept = now
        clients = list(self._frontend.clients.values())
        if pause > settings.client_timeout / 2:  # the machine slept, and so did they
            for client in clients:
                client.heard = now
        for client in clients:
            silence = now - client.heard
            if self._keys.name_of(client.user) is None:
                self._expel(client)
            elif not client.gone and (client.away or silence > settings.client_timeout):
                self._lose(client)
            if client.away or silence > FORGET_AFTER:
                self._frontend.forget(client)
        if now - self._tidied > TIDY_AFTER:
            self._tidied = now
            for job in self._store.ended_before(time.time() - settings.keep_ended):
                log.info("Job %r, which nobody has fetched, is dropped", job.id)
                self._forget_job(self._jobs[job.client, job.id])

    def _lose(self, client: Client) -> None:
        """Nothing was heard of a client for long: what waits for it stays in the store alone."""
        log.info("Client %s is gone; its jobs go on", client)
        client.gone = True
        self._live.lose(client)
        for pending in [pending for pending in self._jobs.values() if pending.taker is client]:
            pending.sent -= self._frontend.discard(client, pending.job)
            pending.told = False
            self._behind[pending] = None
        client.outbox.clear()

    def _expel(self, client: Client) -> None:
        """Its key has been taken away: nobody can fetch what it has asked for."""
        log.info("The key of client %s is let in no more; its jobs end", client)
        self._live.lose(client)
        self._frontend.forget(client)
        for pending in [pending for pending in self._jobs.values() if pending.user == client.user]:
            pending.taker = None
            if pending.ending is None:
                self._cancel(pending, Cancelled(job=pending.job), time.monotonic())
            else:
                self._forget_job(pending)

    # Jobs

    def _dispatch(self) -> None:
        """Give idle workers the next jobs, and tell the others how many come before them now."""
        while (chosen := choose(self._queue, self._crew.slots)) is not None:
            if not self._begin(*chosen):
                break
        order = self._queue.changes, bool(self._crew.running)
        if order != self._announced:
            self._announced = order if self._announce() else None

    def _announce(self) -> bool:
        """Tell those whose turn has come closer; false where one is too busy to hear it now."""
        all_told = True
        for position, pending in enumerate(self._queue, start=1 if self._crew.running else 0):
            client = pending.taker
            if client is None or client.gone or client.away or pending.position == position:
                continue  # it is told when it comes back
            if self._frontend.send(client, Queued(job=pending.job, position=position), keep=False):
                pending.position = position
            else:
                all_told = False
        return all_told

    def _begin(self, pending: PendingRequest, slot: WorkerSlot) -> bool:
        """Hand a job to an idle worker. False where no job can be handed out for now."""
        assert slot.process is not None
        try:
            parts = self._store.request(pending.number)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and is_scarcity(error):
                return False
            log.error("Job %r: its request can't be read (%s)", pending.job, error)
            reason = "The server's copy of this request is damaged; generate the clip again."
            self._queue.remove(pending)
            self._end(pending, wire.encode(Failed(job=pending.job, code="internal", message=reason)))
            return True
        if not slot.process.send(parts):
            return False
        self._queue.take(pending)
        slot.begin(pending)
        self._note(self._store.set_state, pending.number, "running")
        return True

    def _model_of(self, request: GenerationRequest) -> object:
        """What its engine must have loaded for a request, in a form that can be compared."""
        engine = self._engines[request.engine]
        deciding = {option.name: option.default for option in engine.options if option.loads}
        return repr({name: request.engine_options.get(name, value) for name, value in deciding.items()})

    def _cancel(self, pending: PendingRequest, verdict: Cancelled | Failed, now: float) -> None:
        """End a job, waiting or running, with `verdict`; what it has made and is not sent yet is dropped."""
        slot = pending.slot
        if slot is None:
            self._queue.remove(pending)
            pending.verdict = verdict
            self._end(pending, wire.encode(verdict))
        elif pending.verdict is None and slot.process:
            slot.unkept = None
            pending.verdict = verdict
            slot.kill_at = now + self.settings.cancel_grace
            slot.process.send(wire.encode(Cancel(job=pending.job)))
            pending.frames = pending.sent
            if (client := pending.taker) is not None:
                self._frontend.discard(client, pending.job)

    def _end(self, pending: PendingRequest, parts: Sequence) -> None:
        """The last message of a job: kept until its client has it; a cancelled one is not worth that."""
        if pending.slot is not None:
            pending.slot.end()
        if isinstance(pending.verdict, Cancelled):
            self._forget_job(pending)
            self._say(pending, pending.verdict)
            return
        pending.ending = [bytes(part) for part in parts]
        self._note(self._store.end, pending.number, parts)
        self._behind[pending] = None

    def _forget_job(self, pending: PendingRequest) -> None:
        """The client has all of an ended job, or wants no more of it."""
        if pending.slot is not None or (pending.ending is None and pending.verdict is None):
            return
        self._behind.pop(pending, None)
        del self._jobs[pending.user, pending.job]
        self._note(self._store.forget, pending.number)

    def _note(self, write: Callable[..., object], *what: object) -> None:
        """Have the store write down what the next server has to know; this one goes on without."""
        try:
            write(*what)
        except OSError as error:
            log.error("What became of a job can't be kept: %s", error)

    # What workers say

    def _hear_worker(self, slot: WorkerSlot, parts: Sequence[zmq.Frame], now: float) -> None:
        try:
            header = wire.read_header([part.buffer for part in parts])
            kind = header["type"]
            if kind == Welcome.__name__:
                slot.describe(wire.decode([part.buffer for part in parts]))
                self._engines, self._described = self._crew.engines, now
                return
            if kind == Progress.__name__:
                slot.progress = wire.decode([part.buffer for part in parts])
        except MessageError as error:
            log.error("The engine's process (%s) sent a malformed message (%s); ending it", slot.name, error)
            if slot.process:
                slot.process.kill()
            return
        pending = slot.running
        if pending and kind in _ENDINGS:
            log.info("Job %r: %s", pending.job, type(pending.verdict).__name__ if pending.verdict else kind)
            self._end(
                pending, wire.encode(pending.verdict) if pending.verdict else [part.buffer for part in parts]
            )
        elif pending and pending.verdict is None:
            if kind == Frame.__name__:
                self._keep_frame(slot, pending, header["index"], parts, now)
            elif (client := pending.taker) is not None and not client.gone:
                self._frontend.forward(client, parts, pending.job, keep=False)

    def _keep_frame(
        self, slot: WorkerSlot, pending: PendingRequest, index: int, parts: Sequence[zmq.Frame], now: float
    ) -> None:
        """A finished frame: to the store, and to a client that has all before it without a way round."""
        slot.unkept = None
        if index < pending.frames:
            return  # made before, by a process that has ended
        try:
            self._store.add_frame(pending.number, index, [part.buffer for part in parts])
        except OSError as error:
            if is_scarcity(error):
                slot.unkept = pending, index, parts
                return
            reason = (
                f"The server can't keep this clip's frames ({error.strerror}); free some disk space there."
            )
            self._cancel(pending, Failed(job=pending.job, code="full", message=reason), now)
            return
        pending.frames = index + 1
        if pending.sent == index and (client := self._ready_taker(pending)) is not None:
            pending.sent += 1
            self._frontend.forward(client, parts, pending.job, keep=True, is_frame=True)
        else:
            self._behind[pending] = None

    def _bury_worker(self, slot: WorkerSlot, now: float) -> None:
        """A worker's process has ended: its job is made once more, or has failed. Raises `ServerError`."""
        worker = slot.process
        assert worker is not None
        while worker.socket.poll(20) and (parts := worker.receive(now)) is not None:
            self._hear_worker(slot, parts, now)  # its last words
        reason, remedy = self._crew.bury(slot, now)
        if slot.running:
            log.warning("Job %r: the engine's process (%s) ended (%s)", slot.running.job, slot.name, reason)
            self._bury_job(slot.running, reason, remedy)
        else:
            log.info("The engine's process (%s) ended (%s)", slot.name, reason)

    def _bury_job(self, pending: PendingRequest, reason: str, remedy: str) -> None:
        if pending.verdict:
            self._end(pending, wire.encode(pending.verdict))
            return
        try:
            deaths = self._store.count_death(pending.number)
        except OSError as error:
            log.error("The death of a process can't be kept: %s", error)
            deaths = MAX_DEATHS
        if deaths < MAX_DEATHS:
            log.info("Job %r is made once more", pending.job)
            assert pending.slot is not None
            pending.slot.end()
            pending.position = None
            self._queue.put_back(pending)
            return
        message = (
            f"The engine's process ended unexpectedly each of the {deaths} times that it made this clip "
            f"({reason}); {remedy}"
        )
        self._end(pending, wire.encode(Failed(job=pending.job, code="worker", message=message)))

    def _close(self) -> None:
        """End the worker. Jobs that are kept go on when the server is started again; of those that end with
        it every client is told."""
        if self.settings.jobs is None:
            reason = "The server was stopped before this clip was done; start it and generate again."
            for pending in [pending for pending in self._jobs.values() if pending.ending is None]:
                if (client := pending.taker) is not None:
                    self._frontend.discard(client, pending.job)
                self._say(pending, pending.verdict or Failed(job=pending.job, code="worker", message=reason))
        else:
            for pending in self._crew.running:
                self._note(self._store.set_state, pending.number, "waiting")
        self._crew.close()
        self._live.stop()
        deadline = time.monotonic() + 1.0
        while self._frontend.blocked and time.monotonic() < deadline:
            time.sleep(0.02)
            self._frontend.flush()
        self._frontend.close()
        self._context.term()
        self._reader.shutdown(wait=True, cancel_futures=True)
        self._store.close()
        self._folder.cleanup()


def _length(request: GenerationRequest | PoseRequest) -> str:
    count = request.num_frames if isinstance(request, GenerationRequest) else len(request.lengths)
    return f"{count} frames"


def _read_message(buffers: Sequence[memoryview]) -> messages.Checked | Exception:
    """The message, or what is wrong with it."""
    try:
        return wire.decode(buffers, READABLE)
    except Exception as error:
        return error
