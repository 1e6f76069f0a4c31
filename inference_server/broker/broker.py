"""The broker: a loop that takes requests, queues them, hands them to the worker and passes on what it makes.

A job's way: `Accepted`, `Queued` whenever its turn comes closer, then everything the worker says about it,
word for word, up to one of `Done`, `Failed` and `Cancelled`. The loop itself never blocks on anybody. A
client that does not take its frames makes the worker wait, and only the worker: it is not read from as long
as that client's outbox is full.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence

import zmq

from shared import messages, wire
from shared.messages import (
    CLIENT_MESSAGES,
    ENDINGS,
    Accepted,
    Cancel,
    Cancelled,
    EngineDescription,
    Failed,
    Frame,
    GenerationRequest,
    Hello,
    Queued,
    Welcome,
)
from shared.schema import MessageError

from .. import __version__
from . import ServerError
from .frontend import OUTBOX_LIMIT, OUTBOX_ROOM, Client, Frontend
from .limits import Refusal, check_request
from .process import WorkerProcess, explain_exit, private_folder
from .queue import FairQueue, PendingRequest, QueueFull
from .settings import Settings

log = logging.getLogger(__name__)

MESSAGES_PER_TURN = 100
MAX_CLIENTS = 1024
FORGET_AFTER = 3600.0
"""Seconds for which a client that is gone can come back and learn how its jobs ended."""
REFRESH_AFTER = 5.0
"""Seconds after which an idle worker is asked anew what its engines can do (weights may have come)."""
MAX_FAILED_STARTS = 3

_ENDINGS = frozenset(cls.__name__ for cls in ENDINGS)


class Broker:
    def __init__(self, settings: Settings):
        """Binds the front end. Raises `ServerError`."""
        self.settings = settings
        self._context = zmq.Context()
        try:
            self._frontend = Frontend(self._context, settings.address)
        except ServerError:
            self._context.term()
            raise
        self.endpoint = self._frontend.endpoint
        self._stopping = False
        self._bell, self._bell_pull = socket.socketpair()
        self._bell.setblocking(False)
        self._queue = FairQueue(settings.max_jobs, settings.max_jobs_per_client, settings.max_queue_bytes)
        self._jobs: dict[tuple[bytes, str], PendingRequest] = {}
        self._running: PendingRequest | None = None
        self._kill_at: float | None = None
        self._folder = private_folder()
        self._worker: WorkerProcess | None = None
        self._failed_starts = 0
        self._start_at = self._swept = time.monotonic()
        self._engines: dict[str, EngineDescription] = {}
        self._device = ""
        self._described = 0.0

    def stop(self) -> None:
        """End the loop; may be called from any thread and from a signal handler."""
        self._stopping = True
        self._ring()

    def _ring(self) -> None:
        try:
            self._bell.send(b"!")
        except BlockingIOError:
            pass  # it rings already

    def run(self, on_ready: Callable[[str], None]) -> None:
        """Serve until `stop`; `on_ready` gets the address once a worker is ready. Raises `ServerError`."""
        announced = False
        try:
            while not self._stopping:
                self._turn()
                if self._engines and not announced:
                    announced = True
                    on_ready(self.endpoint)
        finally:
            self._close()

    def _turn(self) -> None:
        self._keep_worker()
        ready = self._poll()
        now = time.monotonic()
        if self._bell_pull.fileno() in ready:
            self._bell_pull.recv(4096)
        if self._worker and self._worker.socket in ready:
            for _ in range(MESSAGES_PER_TURN):
                parts = None if self._choked else self._worker.receive()
                if parts is None:
                    break
                self._hear_worker(self._worker, parts, now)
        if self._worker and self._worker.exit_code is not None:
            self._bury_worker(self._worker, self._worker.exit_code, now)
        if self._frontend.socket in ready:
            for _ in range(MESSAGES_PER_TURN):
                received = self._frontend.receive(now)
                if received is None:
                    break
                self._hear_client(*received, now)
        self._look_after_clients(now)
        self._dispatch()
        self._frontend.flush(now)

    def _poll(self) -> dict:
        """Wait until there is something to do. Clients are not heard before a worker has told what it can."""
        poller = zmq.Poller()
        poller.register(self._bell_pull, zmq.POLLIN)
        if self._engines:
            poller.register(self._frontend.socket, zmq.POLLIN)
        if self._worker and not self._choked:
            poller.register(self._worker.socket, zmq.POLLIN)
        waiting = self._kill_at or not self._worker
        return dict(poller.poll(20 if self._frontend.blocked else 100 if waiting else 1000))

    @property
    def _choked(self) -> bool:
        """Whether the running job's client must take frames before more can be made."""
        pending = self._running
        return (
            pending is not None
            and pending.verdict is None
            and len(self._client(pending).outbox) >= OUTBOX_ROOM
        )

    def _client(self, pending: PendingRequest) -> Client:
        return self._frontend.clients[pending.client]

    # What clients say

    def _hear_client(self, client: Client, parts: Sequence[zmq.Frame], now: float) -> None:
        buffers = [part.buffer for part in parts]
        try:
            message = wire.decode(buffers, CLIENT_MESSAGES)
        except wire.VersionError as error:
            self._refuse(client, self._job_named(client, buffers), "version", str(error))
        except MessageError as error:
            self._refuse(client, self._job_named(client, buffers), "invalid", str(error))
        except Exception:  # bytes of a stranger met a fault of ours: that must not end the others' jobs
            log.exception("A message of client %s was not understood", client)
            reason = "The server could not read this message; report it with the server's log."
            self._refuse(client, "", "internal", reason)
        else:
            if isinstance(message, Hello):
                self._welcome(client, now)
            elif isinstance(message, GenerationRequest):
                self._accept(client, message, parts)
            elif (client.identity, message.job) in self._jobs:
                self._cancel(self._jobs[client.identity, message.job], Cancelled(job=message.job), now)

    def _job_named(self, client: Client, buffers: Sequence[memoryview]) -> str:
        """The job that a refused message names; empty where it names none, or one that goes on."""
        try:
            job = messages.JobId.check(wire.read_header(buffers).get("job"), "job")
        except MessageError:
            return ""
        return "" if (client.identity, job) in self._jobs else job

    def _refuse(self, client: Client, job: str, code: str, reason: str) -> None:
        level = logging.DEBUG if client.refused else logging.WARNING
        log.log(level, "Refused a message of client %s: %s", client, reason)
        client.refused = True
        self._frontend.send(client, Failed(job=job, code=code, message=reason[:2048]), keep=False)

    def _welcome(self, client: Client, now: float) -> None:
        engines = tuple(self._engines.values())
        welcome = Welcome(
            server_version=__version__, engines=engines, device=self._device, jobs=len(self._jobs)
        )
        if all(message.job is not None for message in client.outbox):  # else one waits there already
            self._frontend.send(client, welcome)
        if self._worker and self._worker.idle and now - self._described > REFRESH_AFTER:
            self._described = now
            self._worker.send(wire.encode(Hello()))

    def _accept(self, client: Client, request: GenerationRequest, parts: Sequence[zmq.Frame]) -> None:
        pending = PendingRequest(
            client.identity, request.job, request.engine, parts, sum(len(part) for part in parts)
        )
        if (pending.client, pending.job) in self._jobs:
            reason = f"The job {pending.job!r} is at work already; give each job an id of its own."
            self._refuse(client, "", "invalid", reason)
            return
        try:
            check_request(request, self._engines)
            self._queue.add(pending)
        except Refusal as error:
            self._refuse(client, pending.job, error.code, str(error))
        except QueueFull as error:
            self._refuse(client, pending.job, "full", str(error))
        else:
            self._jobs[pending.client, pending.job] = pending
            log.info(
                "Job %r of client %s: %d frames by %s",
                pending.job,
                client,
                request.num_frames,
                pending.engine,
            )
            self._frontend.send(client, Accepted(job=pending.job))

    def _look_after_clients(self, now: float) -> None:
        """Once a second: end the jobs of clients that are gone or stand in others' way."""
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
            if not client.gone and (silence > settings.client_timeout or len(client.outbox) > OUTBOX_LIMIT):
                self._lose(client, now)
            if silence > FORGET_AFTER or (client.gone and not client.outbox):
                self._forget(client)
        surplus = len(self._frontend.clients) - MAX_CLIENTS
        if surplus > 0:
            for client in sorted(clients, key=lambda client: client.heard)[:surplus]:
                self._forget(client)
        if (pending := self._running) and len(self._queue):
            stalled_since = self._client(pending).blocked_since
            if stalled_since is not None and now - stalled_since > settings.stall_timeout:
                reason = "Blender took no more frames while others were waiting; generate this clip again."
                self._cancel(pending, Failed(job=pending.job, code="full", message=reason), now)

    def _lose(self, client: Client, now: float) -> None:
        client.gone = True
        self._frontend.trim(client)
        seconds = round(self.settings.client_timeout)
        reason = f"Nothing was heard from this Blender for {seconds} s; generate this clip again."
        for pending in [pending for pending in self._jobs.values() if pending.client == client.identity]:
            self._cancel(pending, Failed(job=pending.job, code="internal", message=reason), now)

    def _forget(self, client: Client) -> None:
        if all(identity != client.identity for identity, _ in self._jobs):
            self._frontend.forget(client)
            self._queue.forget(client.identity)

    # Jobs

    def _dispatch(self) -> None:
        """Give an idle worker the next job, and tell the others how many come before them now."""
        worker = self._worker
        pending = self._queue.first() if worker and worker.idle else None
        if pending and worker and worker.send(pending.parts):
            self._queue.take(pending)
            worker.idle = False
            self._running = pending
            pending.parts = ()
        for position, pending in enumerate(self._queue, start=1 if self._running else 0):
            if pending.position != position:
                pending.position = position
                self._frontend.send(
                    self._client(pending), Queued(job=pending.job, position=position), keep=False
                )

    def _cancel(self, pending: PendingRequest, verdict: Cancelled | Failed, now: float) -> None:
        """End a job, waiting or running, with `verdict`; what it has made and is not sent yet is dropped."""
        if pending is not self._running:
            self._queue.remove(pending)
            self._end(pending, wire.encode(verdict))
        elif pending.verdict is None:
            pending.verdict = verdict
            self._kill_at = now + self.settings.cancel_grace
            if self._worker:
                self._worker.send(wire.encode(Cancel(job=pending.job)))
            self._frontend.discard(self._client(pending), pending.job)

    def _end(self, pending: PendingRequest, parts: Sequence) -> None:
        if pending is self._running:
            self._running = self._kill_at = None
        del self._jobs[pending.client, pending.job]
        self._frontend.forward(self._client(pending), parts, pending.job, keep=True)

    # What the worker says

    def _hear_worker(self, worker: WorkerProcess, parts: Sequence[zmq.Frame], now: float) -> None:
        try:
            kind = wire.read_header([part.buffer for part in parts])["type"]
            if kind == Welcome.__name__:
                self._describe(worker, wire.decode([part.buffer for part in parts]), now)
                return
        except MessageError as error:
            log.error("The engine's process sent a malformed message (%s); ending it", error)
            worker.kill()
            return
        pending = self._running
        if pending and kind in _ENDINGS:
            log.info("Job %r: %s", pending.job, type(pending.verdict).__name__ if pending.verdict else kind)
            self._end(pending, wire.encode(pending.verdict) if pending.verdict else parts)
        elif pending and pending.verdict is None:
            self._frontend.forward(self._client(pending), parts, pending.job, keep=kind == Frame.__name__)

    def _describe(self, worker: WorkerProcess, welcome: Welcome, now: float) -> None:
        """The worker tells what it can do, and that it is idle unless it is at a job."""
        self._engines = {engine.name: engine for engine in welcome.engines}
        self._device, self._described = welcome.device, now
        worker.reported, worker.idle = True, self._running is None
        self._failed_starts = 0

    def _keep_worker(self) -> None:
        """See that there is a worker, and that it does what it is told."""
        now = time.monotonic()
        if self._worker is None:
            if now >= self._start_at:
                self._worker = WorkerProcess(
                    self._context, self.settings.engines, self._folder.name, self._ring
                )
        elif self._running and self._kill_at and now >= self._kill_at:
            log.warning("Job %r does not stop; ending the process of its engine", self._running.job)
            self._kill_at = None
            self._worker.kill()
        elif not self._worker.reported and now - self._worker.started > self.settings.start_timeout:
            log.warning("The engine's process does not get ready; ending it")
            self._worker.kill()

    def _bury_worker(self, worker: WorkerProcess, exit_code: int, now: float) -> None:
        """The worker's process has ended: so does its job. Raises `ServerError` if none gets ready at all."""
        while worker.socket.poll(20) and (parts := worker.receive()) is not None:
            self._hear_worker(worker, parts, now)  # its last words
        self._worker = None
        worker.close()
        (reason, remedy), pending = explain_exit(exit_code), self._running
        if pending:
            log.warning("Job %r: the engine's process ended (%s)", pending.job, reason)
            message = f"The engine's process ended unexpectedly ({reason}); {remedy}"
            self._end(
                pending,
                wire.encode(pending.verdict or Failed(job=pending.job, code="worker", message=message)),
            )
        else:
            log.info("The engine's process ended (%s)", reason)
        if not worker.reported:
            self._failed_starts += 1
            self._start_at = now + 0.5 * self._failed_starts
            if self._failed_starts == MAX_FAILED_STARTS:
                raise ServerError(f"The engine's process can't start ({reason}); see what it says above.")

    def _close(self) -> None:
        """Tell every client how its jobs ended, and end the worker."""
        reason = "The server was stopped before this clip was done; start it and generate again."
        for pending in list(self._jobs.values()):
            self._frontend.discard(self._client(pending), pending.job)
            self._end(
                pending,
                wire.encode(pending.verdict or Failed(job=pending.job, code="worker", message=reason)),
            )
        if self._worker:
            self._worker.close()
        deadline = time.monotonic() + 1.0
        while self._frontend.blocked and time.monotonic() < deadline:
            time.sleep(0.02)
            self._frontend.flush(time.monotonic())
        self._frontend.close()
        self._context.term()
        self._folder.cleanup()
