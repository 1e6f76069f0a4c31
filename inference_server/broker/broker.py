"""The broker: a loop that hears clients and workers, and has each message dealt with where it belongs.

The loop itself never blocks on anybody. What takes long is done beside it: messages are read by the `reader`,
and all that touches the disk is done by the `keeper` of the store. What becomes of jobs is in `jobs`, of live
sessions in `live`.
"""

from __future__ import annotations

import gc
import logging
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import zmq

from shared import messages, wire
from shared.keys import LOCAL_NAME
from shared.messages import (
    JOBS,
    Cancel,
    Failed,
    FrameRequest,
    Hello,
    LiveClose,
    LiveOpen,
    LivePose,
    Progress,
    Received,
    Resume,
    StatusRequest,
    Welcome,
)
from shared.schema import MessageError
from shared.sentences import say

from .. import __version__
from .descriptors import raise_descriptor_limit
from .frontend import Client, Frontend
from .jobs import JobDesk
from .keys import KeyRing
from .live import LiveDesk, session_named
from .locking import PassingFolder
from .reader import Buffers, Read, Reader
from .settings import Settings
from .slots import Crew, WorkerSlot
from .status import Who, describe_workers, survey
from .store import JobStore

log = logging.getLogger(__name__)

MESSAGES_PER_TURN = 100
TURN = 0.005
"""Seconds after which clients are heard no further in one turn."""
FORGET_AFTER = 3600.0
"""Seconds of silence after which nothing is kept of a client; its jobs stay."""
REFRESH_AFTER = 15.0
"""Seconds after which an idle worker is asked anew what its engines can do (weights may have come)."""
IDLE, LOOKS = 1000, 2
"""Milliseconds between two turns while nobody says a word, and how often who is connected is looked at
meanwhile."""
TIDY_AFTER = 60.0
"""Seconds between two looks for what was never fetched."""
ASLEEP = 5.0
"""A turn that comes so many seconds after the last shows that this process itself stood still."""


class Broker:
    def __init__(self, settings: Settings):
        """Binds the front end. Raises `ServerError`."""
        self.settings = settings
        raise_descriptor_limit()
        with ExitStack() as undo:
            self._folder = PassingFolder()
            undo.callback(self._folder.cleanup)
            self._context = zmq.Context()
            undo.callback(self._context.term)
            self._keys = KeyRing(Path(settings.keys))
            self._frontend = Frontend(self._context, settings.address, self._keys, settings.max_connections)
            undo.callback(self._frontend.close)
            jobs = Path(settings.jobs or Path(self._folder.name) / "jobs")
            self._store = JobStore(jobs, settings.jobs_quota)
            undo.callback(self._store.close)
            self._bell, self._bell_pull = socket.socketpair()
            undo.pop_all()
        self.endpoint = self._frontend.endpoint
        self._stopping = self._finishing = False
        self._bell.setblocking(False)
        self._reader = Reader(self._ring)
        self._live = LiveDesk(self._context, settings, self._folder.name, self._ring, self._frontend)
        self._crew = Crew(self._context, settings, self._folder.name, self._ring)
        self._desk = JobDesk(settings, self._store, self._frontend, self._crew, self._ring)
        self._engines = self._crew.engines
        self._swept = self._turned = self._tidied = time.monotonic()
        self._described = 0.0

    def stop(self) -> None:
        """End the loop; may be called from any thread and from a signal handler."""
        self._stopping = True
        self._ring()

    def finish(self) -> None:
        """End the loop once no job waits or runs and nobody is heard of, if a folder keeps what was not
        fetched; else at once."""
        self._finishing = True
        if self.settings.jobs is None:
            self._stopping = True
        self._ring()

    @property
    def _finished(self) -> bool:
        return self._finishing and self._desk.settled and not self._frontend.attended

    def _ring(self) -> None:
        try:
            self._bell.send(b"!")
        except BlockingIOError:
            pass  # it rings already

    def run(self, on_ready: Callable[[str], None]) -> None:
        """Serve until `stop`; `on_ready` gets the address once a worker is ready. Raises `ServerError`."""
        announced = False
        gc.collect()
        gc.freeze()  # looking through all modules for what is not needed any more would hold up everybody
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
        self._work(ready, time.monotonic())

    def _work(self, ready: dict, now: float) -> None:
        """All that there is to do now; takes no longer than some milliseconds."""
        if self._bell_pull.fileno() in ready:
            self._bell_pull.recv(4096)
        self._desk.hear()
        for slot in self._crew.slots:
            self._serve_slot(slot, ready, now)
        if now - self._turned > ASLEEP:
            self._live.excuse(now)
        self._turned = now
        if self._live.socket in ready:
            self._live.hear(now)
        self._live.look_after(now)
        if self._frontend.socket in ready:
            end = time.monotonic() + TURN
            for _ in range(MESSAGES_PER_TURN):
                if time.monotonic() > end:
                    break
                received = self._frontend.receive(now)
                if received is None:
                    break
                client, buffers = received
                if client is not None and not self._reader.take(client, buffers):
                    log.warning("Client %s says more than can be read; hanging up", client)
                    self._frontend.hang_up(client)
                self._heed_all(now)
        self._heed_all(now)
        self._frontend.watch()
        self._frontend.cut_off_endless(now)
        self._look_after_clients(now)
        self._desk.dispatch()
        self._frontend.flush()
        self._desk.deliver()

    def _poll(self) -> dict:
        """Wait until there is something to do. Clients are not heard before a worker has told what it can."""
        poller = zmq.Poller()
        poller.register(self._bell_pull, zmq.POLLIN)
        poller.register(self._frontend.monitor, zmq.POLLIN)
        if self._engines:
            poller.register(self._frontend.socket, zmq.POLLIN)
        for slot in self._crew.slots:
            if slot.process and slot.readable:
                poller.register(slot.process.socket, zmq.POLLIN)
        if self._live.socket:
            poller.register(self._live.socket, zmq.POLLIN)
        if self._desk.busy:
            return dict(poller.poll(0))
        if self._frontend.blocked:
            return dict(poller.poll(20))
        if self._crew.restless:
            return dict(poller.poll(100))
        looks = LOOKS if self._frontend.connected else 1
        for _ in range(looks):
            if ready := poller.poll(IDLE // looks):
                return dict(ready)
            self._frontend.cut_off_endless(time.monotonic())  # nothing else tells of a message without an end
        return {}

    # What workers say

    def _serve_slot(self, slot: WorkerSlot, ready: dict, now: float) -> None:
        """Hear a worker, and see to what its end leaves behind."""
        worker = slot.process
        if worker is None:
            return
        if worker.socket in ready:
            for _ in range(MESSAGES_PER_TURN):
                if not slot.readable or (parts := worker.receive(now)) is None:
                    break
                self._hear_worker(slot, parts, now)
        if not slot.readable or now - self._turned > ASLEEP:
            worker.heard = now
        if worker.exit_code is not None:
            while worker.socket.poll(20) and (parts := worker.receive(now)) is not None:
                self._hear_worker(slot, parts, now)  # its last words
            self._desk.bury(slot, *self._crew.bury(slot, now))

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
        self._desk.hear_worker(slot, kind, header, parts)

    # What clients say

    def _heed_all(self, now: float) -> None:
        """Heed the messages that have been read."""
        for client, buffers, message in self._reader.read():
            try:
                self._heed(client, buffers, message, now)
            except Exception as error:  # a fault of ours: it must not end the others' jobs
                self._blame_self(client, error)
                self._reader.go_on(client.user)

    def _heed(self, client: Client, buffers: Buffers, message: Read, now: float) -> None:
        """Do what a message says, and go on with its user's next: after what needs the disk, once that is
        done."""

        def go_on() -> None:
            self._reader.go_on(client.user)

        if isinstance(message, JOBS):
            self._desk.accept(client, message, buffers, self._refuse, go_on)
            return
        if isinstance(message, (Cancel, Received)):
            self._desk.let_go(client, message, now, go_on)
            return
        if isinstance(message, FrameRequest):
            self._desk.send_frame(client, message, go_on)
            return
        if isinstance(message, Exception):
            self._refuse_unread(client, buffers, message)
        elif isinstance(message, Hello):
            self._welcome(client, now)
        elif isinstance(message, Resume):
            self._desk.resume(client, message)
        elif isinstance(message, LivePose):
            self._live.pose(client, message)
        elif isinstance(message, LiveOpen):
            self._live.open(client, message, self._engines)
        elif isinstance(message, LiveClose):
            self._live.close(client, message.session)
        elif isinstance(message, StatusRequest):
            self._tell_status(client, message.most, now)
        go_on()

    def _refuse_unread(self, client: Client, buffers: Buffers, error: Exception) -> None:
        """A message could not be read."""
        if isinstance(error, wire.VersionError):
            self._refuse(client, self._job_named(client, buffers), "version", str(error))
        elif not isinstance(error, MessageError):
            self._blame_self(client, error)
        elif (session := self._session_named(buffers)) is not None:
            self._live.refuse(client, session, "invalid", str(error))
        else:
            self._refuse(client, self._job_named(client, buffers), "invalid", str(error))

    def _blame_self(self, client: Client, error: Exception) -> None:
        log.error("A message of client %s was not understood", client, exc_info=error)
        reason = say("The server could not read this message; report it with the server's log.")
        self._refuse(client, "", "internal", reason)

    def _job_named(self, client: Client, buffers: Sequence[memoryview]) -> str:
        """The job that a refused message names; empty where it names none, or one that goes on."""
        try:
            job = messages.JobId.check(wire.read_header(buffers).get("job"), "job")
        except MessageError:
            return ""
        return "" if (client.user, job) in self._desk.jobs else job

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
        self._frontend.send(client, Failed(job=job, code=code, message=reason), keep=False)

    def _welcome(self, client: Client, now: float) -> None:
        engines = tuple(self._engines.values())
        welcome = Welcome(
            server_version=__version__,
            engines=engines,
            device=self._crew.device,
            jobs=self._desk.at_work,
            pose_finder=self._crew.pose_finder,
            workers=describe_workers(self._crew.slots, *self._eyes_of(client)),
        )
        if all(message.job is not None for message in client.outbox):  # else one waits there already
            self._frontend.send(client, welcome)
        if now - self._described > REFRESH_AFTER:
            self._described = now
            for slot in self._crew.slots:
                if slot.process and slot.process.idle:
                    slot.process.send(wire.encode(Hello()))

    def _tell_status(self, client: Client, most: int, now: float) -> None:
        status = survey(
            list(self._desk.jobs.values()),
            self._desk.queue,
            self._crew.slots,
            self._frontend.clients.values(),
            (self._store.bytes, self._store.quota_bytes),
            *self._eyes_of(client),
            now,
            most,
        )
        self._frontend.send(client, status, keep=False)

    def _eyes_of(self, client: Client) -> tuple[Callable[[bytes], bool], Who]:
        """Whose jobs a client may see in full, and what users are called."""
        return (
            lambda user: user == client.user or client.name == LOCAL_NAME,
            lambda user: self._keys.name_of(user) or "(revoked)",
        )

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
            if not client.gone and (client.away or silence > settings.client_timeout):
                self._lose(client)
            if client.away or silence > FORGET_AFTER:
                self._frontend.forget(client)
        users = {client.user for client in clients} | {user for user, _ in self._desk.jobs}
        for user in [user for user in users if self._keys.name_of(user) is None]:
            self._expel(user, now)
        if now - self._tidied > TIDY_AFTER:
            self._tidied = now
            self._desk.tidy(now)

    def _lose(self, client: Client) -> None:
        """Nothing was heard of a client for long."""
        log.info("Client %s is gone; its jobs go on", client)
        client.gone = True
        self._live.lose(client)
        self._desk.lose(client)

    def _expel(self, user: bytes, now: float) -> None:
        """A key has been taken away: nobody can fetch what it has asked for."""
        log.info("A key is let in no more; its jobs end")
        for client in [client for client in self._frontend.clients.values() if client.user == user]:
            self._live.lose(client)
            self._frontend.forget(client)
        self._desk.expel(user, now)

    def _close(self) -> None:
        """End the workers, and let clients have what there is for them."""
        self._desk.close()
        self._crew.close()
        self._live.stop()
        deadline = time.monotonic() + 1.0
        while self._frontend.blocked and time.monotonic() < deadline:
            time.sleep(0.02)
            self._frontend.flush()
        self._frontend.close()
        self._context.term()
        self._reader.close()
        self._folder.cleanup()
