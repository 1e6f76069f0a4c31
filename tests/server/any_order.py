"""Submit, cut, come back, cancel, work, die, kill, stop, in any order: no job is lost, none is made twice
unasked, and each frame is delivered once in effect.

The broker and its store are the real ones, on a real folder; sockets and processes are stood in for, so that
a second holds hundreds of steps. Kills of real processes are in `store_kills` and the benchmark endurance.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import zmq
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inference_server.broker import broker as broker_module
from inference_server.broker import frontend, slots
from inference_server.broker.broker import MAX_DEATHS, MAX_DEATHS_OF_SERVERS, Broker
from inference_server.broker.frontend import Client
from inference_server.broker.settings import Settings
from shared import wire
from shared.engines import EngineDescription
from shared.messages import (
    Accepted,
    Cancel,
    Cancelled,
    Done,
    Failed,
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


class Process:
    """A worker process that makes the next frame when it is told to."""

    reported, vitals, killed_for, exit_code = True, None, "", None
    socket = SimpleNamespace(poll=lambda _: 0)

    def __init__(self):
        self.idle, self.request, self.next, self.cancelled = True, None, 0, False

    def send(self, parts) -> bool:
        message = wire.decode(parts)
        if isinstance(message, GenerationRequest):
            self.request, self.next, self.cancelled = message, 0, False
        elif isinstance(message, Cancel):
            self.cancelled = True
        return True

    def close(self, *_) -> None:
        pass

    dismiss = kill = close


class Crew(slots.Crew):
    def keep(self, now: float) -> None:
        for slot in self.slots:
            if slot.process is None:
                slot.process = Process()
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
        self.number, self.broker, self.abandoned = 0, None, []
        self.start()

    def start(self):
        stand_ins = {
            "KeyRing": lambda *_: SimpleNamespace(name_of=bytes.decode),
            "Frontend": lambda *_: Frontend(self),
            "Crew": Crew,
            "LiveDesk": lambda *_: SimpleNamespace(stop=lambda: None, lose=lambda _: None),
        }
        with mock.patch.multiple(broker_module, **stand_ins):
            jobs = Path(self.folder.name) / "jobs"
            self.broker = Broker(Settings(jobs=jobs, keys=self.folder.name, workers=WORKERS))
        self.broker._crew.keep(0.0)
        self.broker._engines = self.broker._crew.engines
        self.turn()

    def turn(self):
        begun = {slot: slot.running for slot in self.broker._crew.slots}
        self.broker._crew.keep(0.0)
        self.broker._dispatch()
        for slot, before in begun.items():
            if slot.running is not None and slot.running is not before:
                self.jobs[slot.running.job].begun += 1
        self.broker._frontend.flush()
        for _ in range(8):
            self.broker._deliver()

    def say(self, user: bytes, message):
        buffers = [memoryview(part) for part in wire.encode(message)]
        self.broker._heed(self.connections[user], buffers, wire.decode(buffers), 0.0)
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
            assert job.cancelled, "nobody asked for that"
            job.ending = message
        elif isinstance(message, Failed) and message.code == "unknown":
            assert job.cancelled or job.received or not job.accepted, "it is lost"
            job.ending = message
        elif isinstance(message, Failed) and message.code == "worker":
            assert job.deaths >= MAX_DEATHS or job.server_deaths >= MAX_DEATHS_OF_SERVERS
            job.ending = message

    # What users do

    @rule(user=st.sampled_from(USERS))
    def connect(self, user):
        """A connection, in place of the one before: whatever was on its way there is gone."""
        self.cut(user)
        self.number += 1
        client = Client(f"{self.number}".encode(), user, user.decode(), heard=0.0, handle=0)
        self.connections[user] = self.broker._frontend.clients[client.identity] = client
        for name, job in self.jobs.items():
            if job.user == user and job.ending is None:
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
        if own and user in self.connections:
            self.jobs[own[choice % len(own)]].cancelled = True
            self.say(user, Cancel(job=own[choice % len(own)]))

    @rule(user=st.sampled_from(USERS), choice=st.integers(0, 20))
    def let_go(self, user, choice):
        ended = [name for name, job in self.jobs.items() if job.user == user and job.ending is not None]
        if ended and user in self.connections:
            self.jobs[ended[choice % len(ended)]].received = True
            self.say(user, Received(job=ended[choice % len(ended)]))

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
        if slot.running is not None:
            self.jobs[slot.running.job].deaths += 1
        slot.process.exit_code = -9
        self.broker._bury_worker(slot, 0.0)
        self.turn()

    # What becomes of the server

    def gone(self):
        for user in USERS:
            self.cut(user)
        self.start()

    @rule()
    def kill_the_server(self):
        for pending in self.broker._crew.running:
            self.jobs[pending.job].server_deaths += 1
        store = self.broker._store
        store._lock.release()  # as the system does for a process that ends
        self.abandoned.append(self.broker)
        self.gone()

    @rule()
    def stop_the_server(self):
        for pending in self.broker._crew.running:
            self.jobs[pending.job].stops += 1
        self.broker._close()
        self.gone()

    @invariant()
    def none_is_made_twice_unasked(self):
        for name, job in self.jobs.items():
            assert job.begun <= 1 + job.deaths + job.server_deaths + job.stops, name

    def teardown(self):
        try:
            for user in USERS:
                self.connect(user)
            for _ in range(10 * len(self.jobs) + 10):
                for place in range(WORKERS):
                    self.work(place, 10)
            for name, job in self.jobs.items():
                assert job.ending is not None, f"{name} is lost: {job}"
        finally:
            self.broker._close()
            for broker in self.abandoned:
                broker._store._database.close()
                broker._context.destroy()
                broker._folder.cleanup()
            self.folder.cleanup()
