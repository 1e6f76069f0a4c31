"""Submit, cut, come back, cancel, work, die, kill, stop, in any order: no job is lost, none is made twice
unasked, each frame is delivered once in effect, and what a client was told to be forgotten stays so.

The broker and its store are the real ones, on a real folder; sockets, processes and the threads beside the
loop are stood in for, so that a second holds hundreds of steps. What a stalled disk has not done yet is lost
in a kill, and a full one takes nothing. Kills of real processes are in `store_kills` and the benchmark
endurance.
"""

from __future__ import annotations

import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import zmq
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inference_server.broker import broker as broker_module
from inference_server.broker import frontend, keeper, reader, slots
from inference_server.broker import jobs as jobs_module
from inference_server.broker.broker import Broker
from inference_server.broker.frontend import Client
from inference_server.broker.jobs import MAX_DEATHS, MAX_DEATHS_OF_SERVERS
from inference_server.broker.settings import Settings
from inference_server.broker.store import StoreFull
from shared import wire
from shared.engines import EngineDescription
from shared.messages import (
    Accepted,
    Cancel,
    Cancelled,
    Done,
    Failed,
    Forgotten,
    Frame,
    GenerationRequest,
    Received,
    Resume,
    Welcome,
)

from .client import request

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where writing down takes no time; no kill here reaches a disk."""
USERS = (b"ann", b"bob")
WORKERS = 2


def parts_of(message) -> list:
    return [zmq.Frame(bytes(part)) for part in wire.encode(message)]


class Frontend(frontend.Frontend):
    """Hands messages to the users' programs at once, unless those take none for now."""

    def __init__(self, machine):
        self.clients, self.endpoint, self.machine = {}, "here", machine

    def _flush(self, client: Client) -> None:
        while client.outbox and not client.away and client not in self.machine.busy:
            self.machine.hear(client, wire.decode(client.outbox.popleft().parts))

    def watch(self) -> None:
        pass

    close = watch


class Reader(reader.Reader):
    """Reads at once."""

    def __init__(self, ring):
        self._backlogs, self._read, self.close = {}, deque(), lambda: None

    def _begin(self, client, buffers) -> None:
        self._read.append((client, buffers, reader._read(buffers)))


class Keeper(keeper.Keeper):
    """Does everything at once, unless the disk has stalled."""

    def __init__(self, machine, store):
        self.store, self.machine, self.left = store, machine, deque()

    @property
    def busy(self) -> bool:
        return bool(self.left)

    def do(self, work, *arguments, then=keeper.ignore) -> None:
        self.left.append((work, arguments, then))

    def hear(self) -> None:
        while self.left and not self.machine.stalled:
            work, arguments, then = self.left.popleft()
            if self.machine.full and work.__name__ not in ("begin", "read_frames", "content_digest"):
                full = OSError(28, "No space left on device")
                then(StoreFull(str(full)) if work.__name__ == "add" else full)
            else:
                then(self._attempt(work, arguments))

    _closing = True

    def finish(self) -> None:
        self.machine.stalled = self.machine.full = False
        self.hear()
        self.store.close()


class Process:
    """A worker process that makes the next frame when it is told to."""

    reported, vitals, killed_for, exit_code = True, None, "", None
    socket = SimpleNamespace(poll=lambda _: 0)

    def __init__(self, machine):
        self.machine = machine
        self.idle, self.request, self.next, self.cancelled = True, None, 0, False

    def send(self, parts) -> bool:
        message = wire.decode(parts)
        if isinstance(message, GenerationRequest):
            self.machine.jobs[message.job].begun += 1
            self.request, self.next, self.cancelled = message, 0, False
        elif isinstance(message, Cancel):
            self.cancelled = True
        return True

    def close(self, *_) -> None:
        pass

    dismiss = kill = close


class Crew(slots.Crew):
    machine: AnyOrder

    def keep(self, now: float) -> None:
        for slot in self.slots:
            if slot.process is None:
                slot.process = Process(self.machine)
                engine = EngineDescription(name="plain", label="Plain", summary="", neural=False)
                slot.describe(Welcome("1", (engine,), "here"))


@dataclass
class Job:
    """What a user knows of a job, and how often it may have been begun."""

    user: bytes
    frames: int
    request: GenerationRequest
    accepted: bool = False
    have: int = 0
    ending: object = None
    cancelled: bool = False
    received: bool = False
    owed: object = None
    """What the server was not told yet, or has not confirmed."""
    confirmed: bool = False
    begun: int = 0
    deaths: int = 0
    server_deaths: int = 0
    stops: int = 0


class AnyOrder(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="poseanything-any-order-", dir=MEMORY)
        self.jobs: dict[str, Job] = {}
        self.connections: dict[bytes, Client] = {}
        self.busy: set[Client] = set()
        self.stalled = self.full = self.was_full = False
        self.number, self.broker, self.abandoned = 0, None, []
        self.start()
        for user in USERS:
            self.connect(user)

    def start(self):
        stand_ins = {
            "KeyRing": lambda *_: SimpleNamespace(name_of=bytes.decode),
            "Frontend": lambda *_: Frontend(self),
            "Crew": type("", (Crew,), {"machine": self}),
            "Reader": Reader,
            "LiveDesk": lambda *_: SimpleNamespace(stop=lambda: None, lose=lambda _: None),
        }
        keeper = mock.patch.object(jobs_module, "Keeper", lambda store, _: Keeper(self, store))
        with mock.patch.multiple(broker_module, **stand_ins), keeper:
            jobs = Path(self.folder.name) / "jobs"
            self.broker = Broker(Settings(jobs=jobs, keys=self.folder.name, workers=WORKERS))
        self.broker._crew.keep(0.0)
        self.broker._engines = self.broker._crew.engines
        self.turn()

    def turn(self):
        desk = self.broker._desk
        self.broker._crew.keep(0.0)
        while True:
            desk.hear()
            self.broker._heed_all(0.0)
            desk.dispatch()
            self.broker._frontend.flush()
            desk.deliver()
            if self.stalled or not (desk._keeper.busy or desk.busy):
                return

    def say(self, user: bytes, message):
        buffers = [memoryview(part) for part in wire.encode(message)]
        assert self.broker._reader.take(self.connections[user], buffers)
        self.turn()

    def hear(self, client: Client, message):
        job = self.jobs.get(getattr(message, "job", ""))
        if isinstance(message, Accepted):
            job.accepted = True
        elif isinstance(message, Frame):
            assert message.index == job.have, "no frame is left out, and none comes twice"
            job.have += 1
        elif isinstance(message, Done):
            assert job.have == job.frames
            job.ending = message
        elif isinstance(message, Cancelled):
            assert job.cancelled or job.received, "nobody asked for that"
            self.confirm(job, message)
        elif isinstance(message, Forgotten):
            self.confirm(job, message)
        elif isinstance(message, Failed) and message.code == "unknown":
            assert job.cancelled or job.received or not job.accepted, "it is lost"
            job.ending = message
        elif isinstance(message, Failed) and message.code == "worker":
            assert job.deaths >= MAX_DEATHS or job.server_deaths >= MAX_DEATHS_OF_SERVERS
            job.ending = message
        elif isinstance(message, Failed) and message.code == "full":
            assert self.was_full, "there is room"
            job.ending = message

    def confirm(self, job: Job, message):
        job.ending = job.ending or message
        if job.owed is not None:
            job.owed, job.confirmed = None, True

    # What users do

    @rule(user=st.sampled_from(USERS))
    def connect(self, user):
        """A connection, in place of the one before: whatever was on its way there is gone."""
        self.cut(user)
        self.number += 1
        client = Client(f"{self.number}".encode(), user, user.decode(), heard=0.0, handle=0)
        self.connections[user] = self.broker._frontend.clients[client.identity] = client
        for name, job in self.jobs.items():
            if job.user == user and job.owed is not None:
                self.say(user, job.owed)
            elif job.user == user and job.ending is None:
                if job.accepted:
                    self.say(user, Resume(job=name, have=job.have))
                else:
                    self.say(user, job.request)

    @rule(user=st.sampled_from(USERS))
    def cut(self, user):
        if (client := self.connections.pop(user, None)) is not None:
            client.away = True
            self.busy.discard(client)

    @rule(user=st.sampled_from(USERS), frames=st.integers(1, 4))
    def submit(self, user, frames):
        name = f"job {len(self.jobs)}"
        asked = request(name, "plain", frames)
        self.jobs[name] = Job(user, frames, asked)
        if user in self.connections:
            self.say(user, asked)

    @rule(user=st.sampled_from(USERS))
    def take_nothing_for_a_while(self, user):
        if user in self.connections:
            self.busy.add(self.connections[user])

    @rule(user=st.sampled_from(USERS))
    def take_all_again(self, user):
        self.busy.discard(self.connections.get(user))
        self.turn()

    @rule(user=st.sampled_from(USERS), choice=st.integers(0, 20))
    def cancel(self, user, choice):
        own = [name for name, job in self.jobs.items() if job.user == user and job.ending is None]
        if own:
            job = self.jobs[own[choice % len(own)]]
            job.cancelled = True
            self.owe(job, Cancel(job=job.request.job))

    def owe(self, job: Job, message):
        """Tell the server, now or when it is there again, until it confirms."""
        job.owed = message
        if job.user in self.connections:
            self.say(job.user, message)

    @rule(user=st.sampled_from(USERS), choice=st.integers(0, 20))
    def let_go(self, user, choice):
        ended = [name for name, job in self.jobs.items() if job.user == user and job.ending is not None]
        if ended:
            job = self.jobs[ended[choice % len(ended)]]
            job.received = True
            self.owe(job, Received(job=job.request.job))

    # What workers do

    @rule(place=st.integers(0, WORKERS - 1), steps=st.integers(1, 5))
    def work(self, place, steps):
        for _ in range(steps):
            slot = self.broker._crew.slots[place]
            process = slot.process
            if process.request is None:
                return
            name = process.request.job
            if process.cancelled:
                message = Cancelled(job=name)
            elif process.next < process.request.num_frames:
                message = Frame(name, process.next, 64, 48, "png", b"frame %d" % process.next)
                process.next += 1
            else:
                message = Done(name, process.next, 1.0)
            self.broker._hear_worker(slot, parts_of(message), 0.0)
            if not isinstance(message, Frame):
                process.request = None
                slot.describe(Welcome("1", tuple(slot.engines.values()), "here"))
            self.turn()

    @rule(place=st.integers(0, WORKERS - 1))
    def kill_a_worker(self, place):
        slot = self.broker._crew.slots[place]
        if slot.running is not None and slot.handed:
            self.jobs[slot.running.job].deaths += 1
        slot.process.exit_code = -9
        self.broker._serve_slot(slot, (), 0.0)
        self.turn()

    # What becomes of the disk

    @rule()
    def stall(self):
        self.stalled = True

    @rule()
    def fill(self):
        self.full = self.was_full = True

    @rule()
    def go_on(self):
        self.stalled = self.full = False
        self.turn()
        self.broker._desk.tidy(0.0)
        self.turn()

    # What becomes of the server

    def gone(self, back: bool):
        self.stalled = self.full = False
        for user in USERS:
            self.cut(user)
        self.start()
        for user in USERS if back else ():
            self.connect(user)

    @rule(back=st.booleans())
    def kill_the_server(self, back):
        for pending in self.broker._desk.jobs.values():
            unkept = pending.over and (pending.ending is None or pending in self.broker._desk._unended)
            if pending.slot is not None or unkept:
                self.jobs[pending.job].server_deaths += 1
        for job in self.jobs.values():  # what was not confirmed need not be on the disk
            job.server_deaths += job.cancelled and not job.confirmed
        store = self.broker._store
        store._lock.release()  # as the system does for a process that ends
        self.abandoned.append(self.broker)
        self.gone(back)

    @rule(back=st.booleans())
    def stop_the_server(self, back):
        for pending in self.broker._crew.running:
            self.jobs[pending.job].stops += 1
        self.broker._close()
        self.gone(back)

    @invariant()
    def none_is_made_twice_unasked(self):
        for name, job in self.jobs.items():
            assert job.begun <= 1 + job.deaths + job.server_deaths + job.stops, name

    @invariant()
    def what_was_confirmed_is_forgotten(self):
        kept = {job.id for job in self.broker._store.jobs()}
        for name, job in self.jobs.items():
            assert not (job.confirmed and name in kept), f"{name} would come back"

    def teardown(self):
        try:
            self.go_on()
            for user in USERS:
                self.connect(user)
            for _ in range(10 * len(self.jobs) + 10):
                for place in range(WORKERS):
                    self.work(place, 10)
            for name, job in self.jobs.items():
                assert job.ending is not None, f"{name} is lost: {job}"
                assert job.owed is None, f"{name} is not confirmed: {job}"
        finally:
            self.broker._close()
            for broker in self.abandoned:
                broker._store._database.close()
                broker._context.destroy()
                broker._folder.cleanup()
            self.folder.cleanup()
