"""Jobs from their request to their end: queued, handed to workers, kept as they are made, sent to clients.

Frames and endings go to the store first and from there to the client, as it takes them: a client that is
slow, away or gone holds up nobody, and finds all of it when it asks (`Resume`). The store works in a thread
of its own (see `keeper`); what it has done is told here, in the order in which it was asked for.

A job whose worker dies is made once more; so is one whose server dies. What was sent before stays as it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import zmq

from shared import messages, wire
from shared.keys import LOCAL_NAME
from shared.messages import (
    Accepted,
    Cancel,
    Cancelled,
    Failed,
    Forgotten,
    FrameRequest,
    GenerationRequest,
    PoseRequest,
    Queued,
    Received,
    Resume,
)
from shared.sentences import say

from .frontend import Client, Frontend
from .keeper import Keeper
from .limits import Refusal, check_pose_finder, check_request
from .process import WorkerProcess
from .queue import POSES, FairQueue, PendingRequest, QueueFull
from .settings import Settings
from .slots import Crew, WorkerSlot, choose
from .status import describe
from .store import JobStore, StoredJob, StoreFull, content_digest

log = logging.getLogger(__name__)

MAX_DEATHS = 2
"""A job that has ended so many processes is set aside."""
MAX_DEATHS_OF_SERVERS = 3
"""Where the server itself ended each time, which may have had other reasons."""
FRAMES_AT_ONCE = 8
"""Read from the store for one client before others are looked after."""
READ_AGAIN = 1.0
"""Seconds after which frames are read again that could not be read."""
TOLD_PER_TURN = 25
"""Clients that are told the places of their jobs in one turn of the loop."""
ON_OFFER = 3600.0
"""Seconds for which a server that was just started keeps even what should be dropped by its age."""


class JobDesk:
    """Every client's jobs.

    Args:
        store: touched by nobody else from now on.
        ring: called, in another thread, whenever there is something to `hear`.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        frontend: Frontend,
        crew: Crew,
        ring: Callable[[], None],
    ):
        self._settings, self._store, self._frontend, self._crew = settings, store, frontend, crew
        self.queue = FairQueue(settings.max_jobs, settings.max_jobs_per_user)
        self.jobs: dict[tuple[bytes, str], PendingRequest] = {}
        self._behind: dict[PendingRequest, None] = {}
        """Jobs that have something for their client which is not sent yet, in order."""
        self._reading: set[Client] = set()
        """Clients for which frames are just being read: one can't take those of two jobs at once."""
        self._announced: tuple[int, bool] | None = None
        """The order of turns that everybody has been told."""
        self._unforgotten: dict[tuple[bytes, str], int] = {}
        """Numbers of jobs that are over and that a full disk does not let the store forget."""
        self._unended: set[PendingRequest] = set()
        """Jobs whose last message it does not let the store keep."""
        self._restore()
        self._keeper = Keeper(store, ring)
        self.hear = self._keeper.hear

    def _restore(self) -> None:
        """Take up the jobs of a server that ended."""
        stored = self._store.jobs()
        # What ran comes first again, as far as its client's turn goes.
        for one in sorted(stored, key=lambda one: (one.state != "running", one.number)):
            pending = self._pending(one)
            pending.made = pending.sent = pending.frames = one.frames
            pending.deaths = one.deaths
            if one.state == "ended":
                try:
                    pending.ending = pending.over = self._store.ending(one.number)
                    if wire.read_header(pending.ending)["type"] not in _ENDINGS:
                        raise ValueError("it is of no such type")
                except (OSError, ValueError) as error:
                    log.error("How job %r ended can't be read (%s); it is dropped", pending.job, error)
                    self._store.forget(one.number)
                    continue
                age = min(time.time() - one.changed, self._settings.keep_ended - ON_OFFER)
                pending.told, pending.ended = True, time.monotonic() - max(0.0, age)
            elif one.state == "running" and (
                self._store.count_death(one.number, "server") >= MAX_DEATHS_OF_SERVERS
            ):
                reason = say(
                    "The server ended {count} times while this clip was made, so it was set aside; choose a "
                    "smaller size or fewer frames and generate again.",
                    count=MAX_DEATHS_OF_SERVERS,
                )
                failed = wire.encode(Failed(job=pending.job, code="worker", message=reason))
                self._store.end(one.number, failed)
                pending.ending = pending.over = failed
                pending.ended = time.monotonic()
            else:
                self.queue.add(pending)
            self.jobs[pending.user, pending.job] = pending
        if stored:
            log.info("Took up %d jobs, of which %d wait", len(stored), len(self.queue))

    def _pending(self, stored: StoredJob) -> PendingRequest:
        return PendingRequest(
            stored.client, stored.id, stored.engine, stored.number, stored.digest, about=stored.about
        )

    @property
    def at_work(self) -> int:
        """How many jobs wait or run."""
        return sum(pending.ending is None for pending in self.jobs.values())

    @property
    def busy(self) -> bool:
        """Whether there is more to do without anybody saying a word."""
        return self._announced is None or any(map(self._next_reader, self._behind))

    @property
    def settled(self) -> bool:
        """Whether no job waits or runs, and all is kept that shall be."""
        return not self.at_work and not self._keeper.busy

    # What clients say

    def accept(
        self,
        client: Client,
        request: GenerationRequest | PoseRequest,
        parts: Sequence[memoryview],
        refuse: Callable[[Client, str, str, str], None],
        then: Callable[[], None],
    ) -> None:
        """Take a request, if it can be served; `then` is called once it is kept, or refused."""

        def refused(code: str, reason: str, job: str = request.job) -> None:
            refuse(client, job, code, reason)
            then()

        def made_room(dropped: list[StoredJob] | Exception) -> None:
            for job in [] if isinstance(dropped, Exception) else dropped:
                log.warning("Job %r, which nobody has fetched, makes room for a new one", job.id)
                if (old := self.jobs.get((job.client, job.id))) is not None:
                    self._drop(old)

        def kept(result: StoredJob | Exception) -> None:
            if isinstance(result, Exception):
                fault = say("The server can't keep this job; see its log.")
                refused("full", str(result) if isinstance(result, StoreFull) else fault)
                return
            pending = self._pending(result)
            pending.taker, pending.model = client, model
            self.jobs[pending.user, pending.job] = pending
            self.queue.add(pending)
            log.info("Job %r of client %s: %s of %s", pending.job, client, pending.engine, _length(request))
            self._say(pending, Accepted(job=pending.job))
            then()

        def compared(known: PendingRequest, digest: bytes) -> None:
            if digest == known.digest:
                self.resume(client, Resume(job=request.job, have=0))
                then()
            else:
                refused(
                    "invalid",
                    say(
                        "The job {job!r} is at work already; give each job an id of its own.", job=request.job
                    ),
                    job="",
                )

        key = client.user, request.job
        if (known := self.jobs.get(key)) is not None:
            self._keeper.do(content_digest, parts, then=partial(compared, known))
            return
        try:
            if isinstance(request, GenerationRequest):
                check_request(request, self._crew.engines)
                engine, model = request.engine, self._model_of(request)
            else:
                check_pose_finder(self._crew.pose_finder)
                engine, model = POSES, None
            self.queue.require_room(client.user)
        except Refusal as error:
            refused(error.code, str(error))
        except QueueFull as error:
            refused("full", str(error))
        else:
            if (number := self._unforgotten.pop(key, None)) is not None:
                self._keeper.do(self._store.forget, number)
            self._keeper.do(self._store.make_room, sum(part.nbytes for part in parts), then=made_room)
            self._keeper.do(self._store.add, *key, engine, parts, describe(request), then=kept)

    def resume(self, client: Client, message: Resume) -> None:
        """Go on with a job where its client says that it is."""
        pending = self.jobs.get((client.user, message.job))
        if pending is None:
            reason = say("The server does not have this job (any more); generate this clip again.")
            self._frontend.send(client, Failed(job=message.job, code="unknown", message=reason))
            return
        if (before := pending.taker) is not None:
            self._frontend.discard(before, pending.job)
            if before is not client and not (before.away or before.gone):
                reason = say("Another program of yours fetches this now.")
                self._frontend.send(before, Failed(job=pending.job, code="elsewhere", message=reason))
        pending.taker = client
        self._say(pending, Accepted(job=pending.job))
        self._announced = None
        if not isinstance(pending.verdict, Cancelled):  # else nothing of it is kept
            pending.sent, pending.told, pending.position = min(message.have, pending.frames), False, None
            self._behind[pending] = None

    def let_go(
        self, client: Client, message: Cancel | Received, now: float, then: Callable[[], None]
    ) -> None:
        """A client wants no more of a job: it is told once nothing of it is kept. `then` is called as soon as
        the store has done what there is for it."""
        key = client.user, message.job
        pending = self.jobs.get(key)
        if pending is None and isinstance(message, Cancel):
            pending = self.job_seen_by(client, message.job)
        if pending is None:
            # The store is asked even for an unknown one, as what drops it may be under way.
            number = self._unforgotten.pop(key, 0)
            self._forget(key, number, [client], Forgotten(job=message.job), then)
        elif pending.over is not None:
            self._drop(pending)
            key = pending.user, pending.job
            self._forget(key, pending.number, [client], Forgotten(job=pending.job), then)
        else:
            pending.askers.add(client)
            self.cancel(pending, Cancelled(job=pending.job), now)
            then()

    def job_seen_by(self, client: Client, job: str) -> PendingRequest | None:
        """One of the client's own; for who runs the server anybody's."""
        own = self.jobs.get((client.user, job))
        if own is None and client.name == LOCAL_NAME:
            return next((pending for (_, name), pending in self.jobs.items() if name == job), None)
        return own

    def send_frame(self, client: Client, message: FrameRequest, then: Callable[[], None]) -> None:
        """A frame that was asked for by itself; who takes the job's frames as they come still gets them.
        `then` is called once it is read."""

        def read(pending: PendingRequest, result: list[list[bytes]] | Exception) -> None:
            if isinstance(result, OSError):
                log.warning("Frames of job %r can't be read for now: %s", message.job, result)
            elif isinstance(result, Exception):
                self._damaged(pending, str(result))
                missing()
            else:
                self._frontend.forward(client, result[0], message.job, keep=False)
            then()

        def missing() -> None:
            reason = say("The server does not have this frame.")
            self._frontend.send(client, Failed(job=message.job, code="unknown", message=reason), keep=False)

        pending = self.job_seen_by(client, message.job)
        if pending is None or message.index >= pending.frames:
            missing()
            then()
        else:
            told = partial(read, pending)
            self._keeper.do(self._store.read_frames, pending.number, message.index, 1, then=told)

    def lose(self, client: Client) -> None:
        """Nothing was heard of a client for long: what waits for it stays in the store alone."""
        for pending in [pending for pending in self.jobs.values() if pending.taker is client]:
            pending.sent -= self._frontend.discard(client, pending.job)
            pending.told = False
            self._behind[pending] = None
        client.outbox.clear()

    def expel(self, user: bytes, now: float) -> None:
        """A key has been taken away: nobody can fetch what it has asked for."""
        for pending in [pending for pending in self.jobs.values() if pending.user == user]:
            pending.taker = None
            if pending.over is None:
                self.cancel(pending, Cancelled(job=pending.job), now)
            else:
                self._drop(pending)
                self._forget((user, pending.job), pending.number)

    # What clients are sent

    def _say(self, pending: PendingRequest, message: messages.Checked, keep: bool = True) -> bool:
        """False where the client is not there, or busy with what must be kept."""
        client = pending.taker
        return client is not None and not client.gone and self._frontend.send(client, message, keep)

    def _ready_taker(self, pending: PendingRequest) -> Client | None:
        """Its client, where that takes the next frame right now."""
        client = pending.taker
        return client if client and not (client.away or client.gone or client.outbox) else None

    def _next_reader(self, pending: PendingRequest) -> Client | None:
        """The same; where frames come next, only if none are on their way from the store to it already, nor
        have just failed to be."""
        client = self._ready_taker(pending)
        waits = client in self._reading or time.monotonic() < pending.unreadable_until
        return None if waits and pending.sent < pending.frames else client

    def deliver(self) -> None:
        """Send what clients take of the frames and endings that wait in the store."""
        for pending in list(self._behind):
            if (client := self._next_reader(pending)) is None:
                continue
            if pending.sent < pending.frames:
                self._reading.add(client)
                count = min(FRAMES_AT_ONCE, pending.frames - pending.sent)
                self._keeper.do(
                    self._store.read_frames,
                    pending.number,
                    pending.sent,
                    count,
                    then=partial(self._send_frames, pending, client, pending.sent),
                )
                continue
            del self._behind[pending]
            if pending.ending is not None and not pending.told:
                pending.told = True
                self._frontend.forward(client, pending.ending, pending.job, keep=True)

    def _send_frames(
        self, pending: PendingRequest, client: Client, begin: int, result: list[list[bytes]] | Exception
    ) -> None:
        """Frames have been read, from `begin` on."""
        self._reading.discard(client)
        if isinstance(result, OSError):
            log.warning("Frames of job %r can't be read for now: %s", pending.job, result)
            pending.unreadable_until = time.monotonic() + READ_AGAIN
        elif isinstance(result, Exception):
            self._damaged(pending, str(result))
        elif self._ready_taker(pending) is client and pending.sent == begin and pending in self._behind:
            self._behind[pending] = self._behind.pop(pending)  # another of the client's is next
            for parts in result:
                pending.sent += 1
                self._frontend.forward(client, parts, pending.job, keep=True, is_frame=True)

    def _damaged(self, pending: PendingRequest, reason: str) -> None:
        """Frames that were kept can't be read any more."""
        if self.jobs.get((pending.user, pending.job)) is not pending or pending.verdict is not None:
            return
        log.error("Job %r: %s", pending.job, reason)
        sentence = say("Frames of this clip were damaged on the server's disk; generate it again.")
        failed = Failed(job=pending.job, code="internal", message=sentence)
        if pending.over is None:
            self.cancel(pending, failed, time.monotonic())
        else:
            pending.frames = min(pending.sent, pending.frames)
            self._end(pending, wire.encode(failed))

    # The queue

    def dispatch(self) -> None:
        """Give idle workers the next jobs, and tell the others how many come before them now."""
        while (chosen := choose(self.queue, self._crew.slots)) is not None:
            self._begin(*chosen)
        order = self.queue.changes, bool(self._crew.running)
        if order != self._announced:
            self._announced = order if self._announce() else None

    def _announce(self) -> bool:
        """Tell those whose turn has come closer; false where some are left for the next turn."""
        told = 0
        for position, pending in enumerate(self.queue, start=1 if self._crew.running else 0):
            client = pending.taker
            if client is None or client.gone or client.away or pending.position == position:
                continue  # it is told when it comes back
            if told == TOLD_PER_TURN:
                return False
            if self._frontend.send(client, Queued(job=pending.job, position=position), keep=False):
                told += 1
                pending.position = position
        return True

    def _begin(self, pending: PendingRequest, slot: WorkerSlot) -> None:
        """Have a job made by an idle worker, as soon as its request is read."""
        self.queue.take(pending)
        slot.begin(pending)
        then = partial(self._hand_over, pending, slot, slot.process)
        self._keeper.do(self._store.begin, pending.number, then=then)

    def _hand_over(
        self,
        pending: PendingRequest,
        slot: WorkerSlot,
        process: WorkerProcess | None,
        result: list[bytes] | Exception,
    ) -> None:
        """The request has been read."""
        if process is None or pending.slot is not slot or slot.process is not process:
            return  # that process has ended meanwhile
        failed = None
        if isinstance(result, Exception):
            log.error("Job %r: its request can't be read (%s)", pending.job, result)
            reason = say("The server's copy of this request is damaged; generate the clip again.")
            failed = Failed(job=pending.job, code="internal", message=reason)
        elif pending.verdict is None:
            if process.send(result):
                slot.handed = True
            else:
                self._put_back(pending)
            return
        slot.end()
        process.idle = True
        self._end(pending, wire.encode(pending.verdict or failed))

    def _put_back(self, pending: PendingRequest) -> None:
        """A job comes next that was not made after all."""
        assert pending.slot is not None
        pending.slot.end()
        pending.position = None
        self.queue.put_back(pending)
        self._note(self._store.set_state, pending.number, "waiting")

    def _model_of(self, request: GenerationRequest) -> object:
        """What its engine must have loaded for a request, in a form that can be compared."""
        engine = self._crew.engines[request.engine]
        deciding = {option.name: option.default for option in engine.options if option.loads}
        return repr({name: request.engine_options.get(name, value) for name, value in deciding.items()})

    # What becomes of a job

    def cancel(self, pending: PendingRequest, verdict: Cancelled | Failed, now: float) -> None:
        """End a job, waiting or running, with `verdict`; what it has made and is not sent yet is dropped."""
        slot = pending.slot
        if slot is None:
            self.queue.remove(pending)
            pending.verdict = verdict
            self._end(pending, wire.encode(verdict))
        elif pending.verdict is None:
            pending.verdict = verdict
            if slot.handed and slot.process:
                slot.kill_at = now + self._settings.cancel_grace
                slot.process.send(wire.encode(Cancel(job=pending.job)))
            pending.frames = pending.sent
            self._behind.pop(pending, None)
            if (client := pending.taker) is not None:
                self._frontend.discard(client, pending.job)
            if isinstance(verdict, Cancelled):  # a server that is killed now must not make it again
                self._note(self._store.forget, pending.number)

    def _end(self, pending: PendingRequest, parts: Sequence) -> None:
        """The last message of a job: kept until its client has it; a cancelled one is not worth that."""
        if pending.slot is not None:
            pending.slot.end()
        if isinstance(pending.verdict, Cancelled):
            self._drop(pending)
            told = pending.askers | {pending.taker} if pending.taker else pending.askers
            self._forget((pending.user, pending.job), pending.number, told, pending.verdict)
            return
        pending.over = [bytes(part) for part in parts]
        then = partial(self._ended, pending, pending.over)
        self._keeper.do(self._store.end, pending.number, pending.over, then=then)

    def _ended(self, pending: PendingRequest, parts: Sequence, result: Exception | None) -> None:
        """The last message of a job has been kept."""
        self._check_end(pending, result)
        if pending.over is parts and (pending.user, pending.job) in self.jobs:
            pending.ending, pending.told, pending.ended = parts, False, time.monotonic()
            self._behind[pending] = None

    def _check_end(self, pending: PendingRequest, result: Exception | None) -> None:
        if isinstance(result, Exception):
            log.error("How job %r ended can't be kept for now: %s", pending.job, result)
            self._unended.add(pending)

    def _drop(self, pending: PendingRequest) -> None:
        """Know nothing of a job any more."""
        self._behind.pop(pending, None)
        del self.jobs[pending.user, pending.job]

    def _forget(
        self,
        key: tuple[bytes, str],
        number: int,
        askers: Iterable[Client] = (),
        message: Cancelled | Forgotten | None = None,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Have the store forget a job, then tell those who wait for that, and call `then` whatever came of
        it."""

        def forgotten(result: Exception | None) -> None:
            then()
            if isinstance(result, Exception):
                log.error("Job %r can't be dropped for now: %s", key[1], result)
                self._unforgotten[key] = number
            if key in self._unforgotten:
                return
            for client in askers:
                if not (client.gone or client.away):
                    self._frontend.send(client, message)

        self._keeper.do(self._store.forget, number, then=forgotten)

    def _note(self, write: Callable[..., object], *what: object) -> None:
        """Have the store write down what the next server has to know; this one goes on without."""

        def noted(result: object) -> None:
            if isinstance(result, Exception):
                log.error("What became of a job can't be kept: %s", result)

        self._keeper.do(write, *what, then=noted)

    def tidy(self, now: float) -> None:
        """Drop what nobody has fetched for long, and what should be dropped already."""
        for pending in list(self.jobs.values()):
            if pending.ending is not None and now - pending.ended > self._settings.keep_ended:
                log.info("Job %r, which nobody has fetched, is dropped", pending.job)
                self._drop(pending)
                self._forget((pending.user, pending.job), pending.number)
        self._make_up()

    def _make_up(self) -> None:
        """Try again what a full disk has not taken."""
        unended, self._unended = self._unended, set()
        for pending in unended & set(self.jobs.values()):
            self._keeper.do(
                self._store.end, pending.number, pending.over, then=partial(self._check_end, pending)
            )
        unforgotten, self._unforgotten = self._unforgotten, {}
        for key, number in unforgotten.items():
            self._forget(key, number)

    # What workers say

    def hear_worker(self, slot: WorkerSlot, kind: str, header: dict, parts: Sequence[zmq.Frame]) -> None:
        """A message about the job that a worker makes."""
        pending = slot.running
        if pending is None:
            return
        if kind in _ENDINGS:
            log.info("Job %r: %s", pending.job, type(pending.verdict).__name__ if pending.verdict else kind)
            self._end(
                pending, wire.encode(pending.verdict) if pending.verdict else [part.buffer for part in parts]
            )
        elif pending.verdict is None:
            if kind == messages.Frame.__name__:
                if header.get("index") == pending.made:  # else made before, by a process that has ended
                    self._keep_frame(slot, pending, parts)
            elif (client := pending.taker) is not None and not client.gone:
                self._frontend.forward(client, parts, pending.job, keep=False)

    def _keep_frame(self, slot: WorkerSlot, pending: PendingRequest, parts: Sequence[zmq.Frame]) -> None:
        """The next finished frame: to the store, and to a client that has all before it without a way
        round."""
        index = pending.made
        size = sum(len(part.buffer) for part in parts)

        def kept(result: Exception | None) -> None:
            slot.unkept -= size
            if pending.verdict is not None:
                return
            if isinstance(result, Exception):
                reason = getattr(result, "strerror", None) or result
                full = say(
                    "The server can't keep this clip's frames ({reason}); free some disk space there.",
                    reason=reason,
                )
                self._give_up(pending, Failed(job=pending.job, code="full", message=full))
                return
            pending.frames = index + 1
            if pending.sent == index and (client := self._ready_taker(pending)) is not None:
                pending.sent += 1
                self._frontend.forward(client, parts, pending.job, keep=True, is_frame=True)
            else:
                self._behind[pending] = None

        pending.made += 1
        slot.unkept += size
        self._keeper.do(self._store.add_frame, pending.number, index, parts, then=kept)

    def _give_up(self, pending: PendingRequest, failed: Failed) -> None:
        """A job can't go on, whether or not its worker believes that it has ended well."""
        if pending.over is None:
            self.cancel(pending, failed, time.monotonic())
        else:
            pending.verdict = failed
            self._end(pending, wire.encode(failed))

    def bury(self, slot: WorkerSlot, reason: str, remedy: str) -> None:
        """A worker's process has ended: its job is made once more, or has failed."""
        pending = slot.running
        if pending is None:
            log.info("The engine's process (%s) ended (%s)", slot.name, reason)
            return
        log.warning("Job %r: the engine's process (%s) ended (%s)", pending.job, slot.name, reason)
        if pending.verdict:
            self._end(pending, wire.encode(pending.verdict))
            return
        if slot.handed:
            pending.deaths += 1
            self._note(self._store.count_death, pending.number)
        if pending.deaths < MAX_DEATHS:
            log.info("Job %r is made once more", pending.job)
            self._put_back(pending)
            return
        message = say(
            "The engine's process ended unexpectedly each of the {count} times that it made this clip "
            "({reason}); {remedy}",
            count=pending.deaths,
            reason=reason,
            remedy=remedy,
        )
        self._end(pending, wire.encode(Failed(job=pending.job, code="worker", message=message)))

    def close(self) -> None:
        """Jobs that are kept go on when the server is started again; of those that end with it every client
        is told."""
        if self._settings.jobs is None:
            reason = say("The server was stopped before this clip was done; start it and generate again.")
            for pending in [pending for pending in self.jobs.values() if pending.ending is None]:
                if (client := pending.taker) is not None:
                    self._frontend.discard(client, pending.job)
                self._say(pending, pending.verdict or Failed(job=pending.job, code="worker", message=reason))
                pending.taker = None
        else:
            for pending in self._crew.running:
                self._note(self._store.set_state, pending.number, "waiting")
            self._make_up()
        self._keeper.finish()


def _length(request: GenerationRequest | PoseRequest) -> str:
    count = request.num_frames if isinstance(request, GenerationRequest) else len(request.lengths)
    return f"{count} frames"


_ENDINGS = [cls.__name__ for cls in messages.ENDINGS]
