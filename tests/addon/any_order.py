"""The client, whatever happens in whatever order: no job is lost, none is asked for twice unasked, each frame
is written once and in its place, a cancelled job is left alone, and the server is told of all that is over.

The client's thread is the real one and runs its own loop, in step with the test. Sockets, clocks and the
server are stood in for, so that a second holds hundreds of steps.
"""

from __future__ import annotations

import tempfile
import threading
import time
import uuid
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import zmq
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shared import wire
from shared.messages import (
    CLIENT_MESSAGES,
    Accepted,
    Cancel,
    Cancelled,
    Done,
    Failed,
    Forgotten,
    Frame,
    GenerationRequest,
    Hello,
    Piece,
    Progress,
    Received,
    Resume,
    Welcome,
)
from shared.pieces import Assembly
from tests.addon.servers import make_request, module

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
MOST_GAPS = 3
"""How many frames in a row of one job a server may leave out before its client gives up; see the client."""
PATIENCE = 20.0


def picture(request, index: int) -> bytes:
    """A file that differs from frame to frame, and is all that a client looks at in a picture."""
    return bytes(request.first_frame[:33]) + index.to_bytes(4, "big") + bytes(request.first_frame[-12:])


class Clock:
    """Seconds that pass when the test says so; a computer that sleeps stops `monotonic` alone."""

    def __init__(self):
        self.now, self.slept = 1000.0, 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + self.slept

    def sleep(self, seconds: float) -> None:
        threading.Event().wait(seconds)


class Pace:
    """Lets the client's thread run until it has nothing to do, and then holds it."""

    def __init__(self):
        self.turn, self.woken, self.resting = threading.Condition(), False, False

    def rest(self) -> None:
        with self.turn:
            self.resting = True
            self.turn.notify_all()
            self.turn.wait_for(lambda: self.woken)
            self.woken = self.resting = False

    def wake(self) -> None:
        with self.turn:
            self.woken = True
            self.turn.notify_all()

    def settle(self, thread: threading.Thread) -> None:
        end = time.monotonic() + PATIENCE
        with self.turn:
            while not self.turn.wait_for(lambda: self.resting and not self.woken, 0.05):
                assert thread.is_alive(), "the client's thread ended"
                assert time.monotonic() < end, "the client's thread does not come to rest"


class Bell:
    def __init__(self, pace: Pace):
        self.pace, self.rings = pace, 0

    def bind(self, address) -> None: ...

    connect = bind

    def send(self, data, flags) -> None:
        self.rings += 1
        self.pace.wake()

    def recv(self) -> None:
        self.rings = 0

    def waits(self) -> bool:
        return self.rings > 0

    def close(self, linger=None) -> None: ...


class Monitor:
    def __init__(self):
        self.events = deque()

    def waits(self) -> bool:
        return bool(self.events)

    def poll(self, timeout) -> bool:
        return self.waits()

    def close(self, linger=None) -> None: ...


class Dealer:
    """The client's end of a connection; `up` while there is a conversation with the server."""

    def __init__(self, server: Server):
        self.server, self.monitor, self.incoming = server, Monitor(), deque()
        self.wanted = self.up = self.dead = self.full = False

    def setsockopt(self, option, value) -> None: ...

    def get_monitor_socket(self, events) -> Monitor:
        return self.monitor

    def disable_monitor(self) -> None: ...

    def connect(self, address) -> None:
        self.wanted = True
        self.establish()

    def establish(self) -> None:
        if self.wanted and not self.up and self.server.up:
            self.up, self.dead, self.server.dealer = True, False, self
            self.monitor.events.append(zmq.EVENT_HANDSHAKE_SUCCEEDED)

    def drop(self) -> None:
        self.up = False
        if self.server.dealer is self:
            self.server.lose_connection()

    def disconnect(self, address) -> None:
        self.wanted = False
        self.drop()

    def cut(self, lost: bool) -> None:
        """From outside; what the server has said may be `lost` with it."""
        if self.up:
            self.drop()
            self.monitor.events.append(zmq.EVENT_DISCONNECTED)
            if lost:
                self.incoming.clear()

    def close(self, linger=None) -> None:
        self.drop()
        self.wanted = False

    def waits(self) -> bool:
        return bool(self.incoming)

    def recv_multipart(self, flags, copy) -> list:
        if not self.incoming:
            raise zmq.Again
        return [zmq.Frame(part) for part in self.incoming.popleft()]

    def send_multipart(self, parts, flags, copy) -> None:
        if not self.up or self.full:
            raise zmq.Again
        if not self.dead:
            self.server.hear([bytes(part) for part in parts])


class Poller:
    def __init__(self, pace: Pace):
        self.pace, self.sockets = pace, []

    def register(self, socket, events) -> None:
        self.sockets.append(socket)

    def poll(self, timeout) -> list:
        if not any(socket.waits() for socket in self.sockets):
            self.pace.rest()
        return [(socket, zmq.POLLIN) for socket in self.sockets if socket.waits()]


@dataclass
class Made:
    """A job at the server: `made` frames are there, `sent` of them went to the client that is connected."""

    request: GenerationRequest
    made: int = 0
    sent: int | None = None


class Server:
    """Answers as the real one does, and keeps its jobs when it is killed."""

    def __init__(self, machine: AnyOrder):
        self.machine, self.up, self.dealer, self.assembly = machine, False, None, None
        self.jobs: dict[str, Made] = {}

    def lose_connection(self) -> None:
        self.dealer = self.assembly = None
        for job in self.jobs.values():
            job.sent = None

    def say(self, message) -> None:
        if self.dealer is not None and not self.dealer.dead:
            self.dealer.incoming.append([bytes(part) for part in wire.encode(message)])

    def hear(self, parts: list) -> None:
        message = wire.decode(parts, CLIENT_MESSAGES)
        name = getattr(message, "job", "")
        if isinstance(message, Hello):
            self.say(Welcome("1", ()))
        elif isinstance(message, Piece):
            if message.offset == 0:
                self.assembly = Assembly(message.stream, message.total)
            self.assembly.add(message)
            if self.assembly.hungry:
                self.say(self.assembly.grant())
            if self.assembly.whole:
                parts, self.assembly = self.assembly.parts(), None
                self.hear([bytes(part) for part in parts])
        elif isinstance(message, GenerationRequest):
            self.machine.asked_for(name)
            self.jobs.setdefault(name, Made(message))
            self.resume(name, 0)
        elif isinstance(message, Resume):
            self.machine.resumed(name)
            if name in self.jobs:
                self.resume(name, message.have)
            else:
                self.machine.jobs[name].unknown += 1
                self.say(Failed(name, "unknown", "There is no such job."))
        elif isinstance(message, Cancel):
            self.say((Cancelled if self.jobs.pop(name, None) else Forgotten)(name))
        elif isinstance(message, Received):
            self.jobs.pop(name, None)
            self.say(Forgotten(name))

    def resume(self, name: str, have: int) -> None:
        self.say(Accepted(name))
        self.jobs[name].sent = min(have, self.jobs[name].made)
        self.deliver(name)

    def deliver(self, name: str) -> None:
        job = self.jobs[name]
        if self.dealer is None or self.dealer.dead or job.sent is None:
            return
        while job.sent < job.made:
            self.frame(name, job.sent)
            job.sent += 1
        if job.made == job.request.num_frames:
            self.say(Done(name, job.made, 1.0))
            job.sent = None

    def frame(self, name: str, index: int) -> None:
        request = self.jobs[name].request
        self.say(Frame(name, index, request.width, request.height, "png", picture(request, index)))


@dataclass
class Job:
    """What the user knows of a job, and how often the server may be asked for it."""

    request: object
    folder: Path
    writer: object = None
    asked: int = 0
    """By the user, of this client and those before it."""
    heard: int = 0
    unknown: int = 0
    """How often the server said that it has no such job."""
    gaps: int = 0
    lost: bool = False
    """By the server, with all that it kept."""
    cancelled: bool = False
    ending: object = None


class AnyOrder(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.there = module("connection.client")
        self.conversation = module("connection.conversation")
        self.folder = tempfile.TemporaryDirectory(prefix="poseanything-any-order-", dir=MEMORY)
        self.clock, self.server, self.jobs = Clock(), Server(self), {}
        account = uuid.uuid4().hex
        self.goodbyes = module("connection.goodbyes").Goodbyes(account)
        stand_ins = {
            "zmq": SimpleNamespace(
                **{name: getattr(zmq, name) for name in dir(zmq) if not name.startswith("_")}
                | {"Context": lambda: self.context, "Poller": lambda: Poller(self.pace)}
            ),
            "recv_monitor_message": lambda monitor: {"event": monitor.events.popleft()},
            "local_token": lambda: SimpleNamespace(account=account, apply_to=lambda socket: None),
            "probe": SimpleNamespace(look=lambda address: "NOBODY", STRANGER=1, OPEN=2, LOCKED=3),
            "time": self.clock,
        }
        self.stood_in = ExitStack()
        for there in (self.there, self.conversation, module("connection.link")):
            known = {name: stand_in for name, stand_in in stand_ins.items() if hasattr(there, name)}
            self.stood_in.enter_context(mock.patch.multiple(there, **known))
        self.open()

    def open(self) -> None:
        self.pace = Pace()
        bell, self.dealer = Bell(self.pace), Dealer(self.server)
        sockets = {zmq.PAIR: bell, zmq.DEALER: self.dealer}
        self.context = SimpleNamespace(socket=sockets.__getitem__, term=lambda: None)
        self.client = self.there.BridgeClient("tcp://127.0.0.1:47847", "test")
        self.client._thread.start()
        self.turn()

    def turn(self) -> None:
        self.pace.wake()
        self.pace.settle(self.client._thread)
        for event in self.client.poll(10_000):
            self.see(event)

    # What may come of it

    def asked_for(self, name: str) -> None:
        job = self.jobs[name]
        job.heard += 1
        assert not job.cancelled, "a cancelled job is asked for"
        assert job.heard <= job.asked + job.unknown, "a job is asked for twice unasked"

    def resumed(self, name: str) -> None:
        assert not self.jobs[name].cancelled, "a cancelled job is resumed"

    def see(self, event) -> None:
        kind, job = type(event).__name__, self.jobs.get(getattr(event, "job", ""))
        if kind == "FramesSaved":
            assert not job.cancelled
        elif kind in ("Done", "Failed", "Cancelled"):
            assert job.ending is None, "a job ends once"
            assert (kind == "Cancelled") == job.cancelled, event
            assert kind != "Failed" or job.lost, event
            assert kind != "Done" or job.writer.written == job.request.num_frames
            job.ending = event

    def pick(self, choice: int, wanted=lambda job: job.ending is None) -> str | None:
        names = [name for name, job in self.jobs.items() if wanted(job)]
        return names[choice % len(names)] if names else None

    # What the user does

    @rule(frames=st.integers(1, 4), large=st.sampled_from((False, False, False, True)))
    def submit(self, frames, large):
        """A `large` one goes in pieces, of which the server must ask for some."""
        request = make_request(frames, job=f"job {len(self.jobs)}")
        if large:
            whole = request.first_frame[:-12] + bytes(400_000) + request.first_frame[-12:]
            request = make_request(frames, job=request.job, first_frame=whole)
        folder = Path(self.folder.name) / request.job
        folder.mkdir()
        self.jobs[request.job] = Job(request, folder)
        self.hand_in(request.job)
        self.turn()

    def hand_in(self, name: str) -> None:
        """To this client, as the add-on does it for a new clip and for one that was left unfinished."""
        job = self.jobs[name]
        have = len(list(job.folder.iterdir()))
        job.writer = self.writer(job, have)
        if name in self.server.jobs or job.lost:
            self.client.adopt(name, job.writer, (job.request.width, job.request.height))
        else:
            job.asked += 1
            self.client.submit(job.request, job.writer)

    def writer(self, job: Job, have: int):
        class Writer(module("takes.writer").TakeWriter):
            def write(self, data):
                assert not job.cancelled, "a frame of a cancelled job is written"
                assert data == picture(job.request, self.written), "a frame is not in its place"
                super().write(data)

        return Writer(job.folder, "take", job.request.num_frames, have)

    @rule(choice=st.integers(0, 20))
    def ask_for_it_again(self, choice):
        """The same id a second time, while the first is at work."""
        if (name := self.pick(choice)) is not None:
            self.hand_in(name)
            self.turn()

    @rule(choice=st.integers(0, 20))
    def cancel(self, choice):
        if (name := self.pick(choice)) is not None:
            self.jobs[name].cancelled = True
            self.client.cancel(name)
            self.turn()
            assert self.jobs[name].ending is not None, "the user's wish holds at once"

    @rule(frames=st.integers(1, 3), choice=st.integers(0, 20))
    def while_it_is_parked(self, frames, choice):
        with self.client.parked(PATIENCE) as still:
            assert still
            if self.server.jobs:
                self.make(choice, frames)
        self.turn()

    @rule(keep=st.booleans())
    def restart_blender(self, keep):
        """What it has kept is picked up; without that, what runs is cancelled. Of what is over the next one
        knows by itself."""
        for job in self.jobs.values():
            job.cancelled = job.cancelled or (not keep and job.ending is None)
        self.client._command(self.conversation.Conversation.close, keep)
        while self.client._thread.is_alive():
            self.clock.now += 0.3
            self.pace.wake()
            self.client._thread.join(0.001)
        self.client.close(0)
        for event in self.client.poll(10_000):
            self.see(event)
        self.open()
        for name, job in self.jobs.items():
            if job.ending is None:
                self.hand_in(name)
        self.turn()

    # What becomes of the connection and the server

    @rule()
    def begin_to_serve(self):
        self.server.up = True
        self.dealer.establish()
        self.turn()

    @rule(lost=st.booleans())
    def cut(self, lost):
        self.dealer.cut(lost)
        self.turn()

    @rule(lost=st.booleans(), forgets=st.sampled_from((False, False, False, True)))
    def kill_the_server(self, lost, forgets):
        """Rarely with all that it kept."""
        self.server.up = False
        self.dealer.cut(lost)
        if forgets:
            for name in self.server.jobs:
                self.jobs[name].lost = True
            self.server.jobs.clear()
        self.turn()
        self.dealer.monitor.events.append(zmq.EVENT_CONNECT_RETRIED)
        self.turn()

    @rule()
    def go_dead(self):
        """Nothing arrives any more, and neither side knows."""
        self.dealer.dead = self.dealer.up

    @rule()
    def take_nothing_for_a_while(self):
        self.dealer.full = True

    @rule()
    def take_all_again(self):
        self.dealer.full = False
        self.turn()

    @rule(seconds=st.sampled_from((0.5, 2.5, 130.0)))
    def wait(self, seconds):
        self.clock.now += seconds
        self.turn()
        self.dealer.establish()
        self.turn()

    @rule()
    def sleep(self):
        """The computer, for an hour."""
        self.clock.slept += 3600
        self.turn()
        self.wait(6.0)

    # What the server makes

    def make(self, choice: int, frames: int) -> None:
        names = list(self.server.jobs)
        name = names[choice % len(names)]
        job = self.server.jobs[name]
        job.made = min(job.made + frames, job.request.num_frames)
        if job.sent is not None:
            self.server.say(Progress(name, "drawing", job.made, job.request.num_frames))
        self.server.deliver(name)

    @rule(choice=st.integers(0, 20), frames=st.integers(1, 4))
    def work(self, choice, frames):
        if self.server.jobs:
            self.make(choice, frames)
            self.turn()

    @rule(choice=st.integers(0, 20), index=st.integers(0, 3))
    def send_a_frame_again(self, choice, index):
        if self.server.jobs:
            name = list(self.server.jobs)[choice % len(self.server.jobs)]
            job = self.server.jobs[name]
            if job.sent:
                self.server.frame(name, index % job.sent)
                self.turn()

    @rule(choice=st.integers(0, 20))
    def leave_a_frame_out(self, choice):
        name = self.pick(choice, lambda job: job.request.job in self.server.jobs and job.gaps < MOST_GAPS)
        if name is not None and (job := self.server.jobs[name]).sent is not None:
            if job.made < job.request.num_frames - 1:
                self.jobs[name].gaps += 1
                job.made += 2
                job.sent += 1
                self.server.deliver(name)
                self.turn()

    @invariant()
    def frames_are_there_in_order(self):
        for job in self.jobs.values():
            names = sorted(path.name for path in job.folder.iterdir())
            assert names == [f"take_{i + 1:04d}.png" for i in range(len(names))]

    @invariant()
    def nothing_goes_on_unwanted(self):
        for name in self.server.jobs:
            assert self.jobs[name].ending is None or name in self.goodbyes, f"{name} is a ghost"

    def teardown(self):
        try:
            self.dealer.full = False
            self.begin_to_serve()
            for _ in range(4):
                self.wait(130.0)
            for _ in range(8):
                for choice in range(len(self.server.jobs)):
                    if self.server.jobs:
                        self.work(choice, 4)
            for name, job in self.jobs.items():
                assert job.ending is not None, f"{name} is lost: {job}"
                if type(job.ending).__name__ == "Done":
                    for index, path in enumerate(sorted(job.folder.iterdir())):
                        assert path.read_bytes() == picture(job.request, index)
            assert not self.goodbyes.jobs(), "the server was not told, or has not heard"
            assert not self.server.jobs, "the server goes on with what nobody wants"
        finally:
            self.client.close(PATIENCE)
            self.stood_in.close()
            self.folder.cleanup()
            assert not self.client._thread.is_alive()
