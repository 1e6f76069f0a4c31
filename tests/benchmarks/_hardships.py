"""What the benchmark endurance puts server and client through, one function for each row of its table.

Each gets the counts to use and gives what was measured, as words, and whether that is what is wanted.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import run_state_machine_as_test

from inference_server.broker.store import JobStore
from shared import wire
from shared.messages import (
    ENDINGS,
    Accepted,
    Cancel,
    Cancelled,
    Done,
    Failed,
    Forgotten,
    Frame,
    Hello,
    Queued,
    Received,
    Resume,
)
from tests.addon.relay import Relay
from tests.server import test_hostile
from tests.server.any_order import AnyOrder
from tests.server.client import ROOT, Client, ServerProcess, memory, most_memory, request
from tests.server.engines import ENGINES
from tests.server.processes import Output, alive, start_server

from . import _footage

FRAMES, WAITING = 12, 3
Result = tuple[str, bool]


@dataclass(frozen=True)
class Row:
    """`what` is done, `wanted` of it; `counts` are a whole run's, `few` those of a trial."""

    what: str
    wanted: str
    run: Callable[..., Result]
    counts: tuple[int, ...]
    few: tuple[int, ...]


ROWS: list[Row] = []
LONG = 300.0
"""Seconds after which a Blender that gets no further has lost its job."""


def row(what: str, wanted: str, counts: tuple[int, ...] = (), few: tuple[int, ...] = ()):
    def enter(run: Callable[..., Result]) -> Callable[..., Result]:
        ROWS.append(Row(what, wanted, run, counts, few or counts))
        return run

    return enter


@cache
def install() -> None:
    """Have the extension, once."""
    _footage.install()


def serve(**options) -> ServerProcess:
    return ServerProcess(ENGINES, **options)


# Server and workers that end


def submit(client: Client, prefix: str) -> list[str]:
    names = [f"{prefix} {number}" for number in range(1 + WAITING)]
    for name in names:
        client.send(request(name, "plain", num_frames=FRAMES, engine_options={"pause": 0.02}))
        client.wait_for(Accepted, job=name)
    return names


def fetch(client: Client, name: str, have: list[int]) -> bool:
    """Whether the whole clip is there once its rest has come."""
    client.send(Resume(job=name, have=len(have)))
    client.wait_for(Accepted, job=name)
    before = len(client.of(Frame, job=name))
    done = client.ending(name)
    client.send(Received(job=name))
    client.wait_for(Forgotten, job=name)
    frames = have + [frame.index for frame in client.of(Frame, job=name)[before:]]
    return isinstance(done, Done) and frames == list(range(FRAMES))


def end_servers(number: signal.Signals, rounds: int) -> Result:
    lost = total = 0
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            with serve(jobs=folder) as server, server.client(user="user") as client:
                names = submit(client, f"{number.name} {turn}")
                client.wait_for(Frame, job=names[0])
                have = {name: [frame.index for frame in client.of(Frame, job=name)] for name in names}
                server.process.send_signal(number)
                server.wait()
            with serve(jobs=folder) as server, server.client(user="user") as client:
                lost += sum(not fetch(client, name, have[name]) for name in names)
            total += len(names)
    return f"{lost} of {total} jobs lost", lost == 0


@row("server killed (SIGKILL) {} times, 1 job running and 3 waiting", "0 lost", (20,), (2,))
def kill_servers(rounds: int) -> Result:
    return end_servers(signal.SIGKILL, rounds)


@row("server stopped (SIGTERM) {} times, 1 job running and 3 waiting", "0 lost", (20,), (2,))
def stop_servers(rounds: int) -> Result:
    return end_servers(signal.SIGTERM, rounds)


@row("engine's process killed {} times in the middle of a job", "0 lost, each made once more", (100,), (5,))
def kill_workers(rounds: int) -> Result:
    lost, seconds = 0, []
    with serve() as server, server.client(user="user") as client:
        for turn in range(rounds):
            name = f"worker {turn}"
            client.send(request(f"who {turn}", "plain"))
            worker = int(client.ending(f"who {turn}").note)
            client.send(request(name, "plain", num_frames=FRAMES, engine_options={"pause": 0.02}))
            client.wait_for(Frame, job=name)
            os.kill(worker, signal.SIGKILL)
            killed = time.perf_counter()
            ending = client.ending(name)
            seconds.append(time.perf_counter() - killed)
            frames = [frame.index for frame in client.of(Frame, job=name)]
            lost += not (isinstance(ending, Done) and frames == list(range(FRAMES)))
            client.events.clear()
    return f"{lost} of {rounds} lost, done {statistics.median(seconds):.2f} s after the kill", lost == 0


@row("{} jobs that kill each process they run in", "set aside with a sentence after two", (10,), (2,))
def poison(count: int) -> Result:
    aside = 0
    with serve() as server, server.client() as client:
        for number in range(count):
            client.send(request(f"{number}", "fatal", engine_options={"how": "kill"}))
            failed = client.ending(f"{number}")
            aside += isinstance(failed, Failed) and "each of the 2 times" in failed.message
        client.send(request("next", "plain"))
        served = isinstance(client.ending("next"), Done)
    return f"{aside} of {count} set aside, the next job is made", aside == count and served


@row("engine's process stopped (SIGSTOP) {} times", "replaced within 15 s of silence, 0 lost", (3,), (1,))
def hang_workers(rounds: int) -> Result:
    lost, ended, seconds = 0, [], []
    with serve() as server, server.client() as client:
        for turn in range(rounds):
            name = f"hung {turn}"
            client.send(request(f"who {turn}", "plain"))
            worker = int(client.ending(f"who {turn}").note)
            client.send(request(name, "plain", num_frames=30, engine_options={"pause": 0.05}))
            client.wait_for(Frame, job=name)
            os.kill(worker, signal.SIGSTOP)
            stopped = time.perf_counter()
            while alive(worker):
                if client.socket.poll(100):
                    client.receive()
            ended.append(time.perf_counter() - stopped)
            client.wait_for(Frame, *ENDINGS, job=name)
            seconds.append(time.perf_counter() - stopped - ended[-1])
            if not isinstance(client.events[-1], Done):
                client.ending(name)
            frames = [frame.index for frame in client.of(Frame, job=name)]
            lost += frames != list(range(30)) or int(client.of(Done, job=name)[-1].note) == worker
    words = f"{lost} of {rounds} lost, ended after {max(ended):.1f} s, next frame {max(seconds):.1f} s later"
    return words, lost == 0 and max(ended) < 17


@row("server's first worker killed {} times at the start, jobs waiting", "queue kept", (3,))
def kill_at_start(kills: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        with serve(jobs=folder) as server, server.client(user="user") as client:
            names = submit(client, "start")
            server.process.kill()
            server.wait()
        order = {"address": "tcp://127.0.0.1:0", "engines": ENGINES, "jobs": folder}
        killed: set[int] = set()
        process = start_server(order)
        try:
            while len(killed) < kills:
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                for child in set(map(int, children)) - killed:
                    os.kill(child, signal.SIGKILL)
                    killed.add(child)
                time.sleep(0.01)
            address = Output(process.stdout).line("listening on ").split()[-1]
            with Client(address, user="user") as client:
                kept = sum(fetch(client, name, []) for name in names)
        finally:
            process.terminate()
            process.wait()
    return f"{kept} of {len(names)} jobs made", kept == len(names)


# Connections


@contextmanager
def blender(address: str) -> Iterator:
    """The extension's client, and how to have a clip made by it."""
    install()
    from tests.addon.servers import Talk, make_request

    talk = Talk(address)
    folders = ExitStack()

    def ask(frames: int = 60, pause: float = 0.01, picture=lambda picture: picture):
        folder = Path(folders.enter_context(tempfile.TemporaryDirectory()))
        options = {"engine": "plain", "engine_options": {"pause": pause}}
        picture = picture(make_request(1).first_frame)
        asked = talk.submit(folder, make_request(frames, first_frame=picture, **options))
        return asked, folder

    try:
        yield talk, ask
    finally:
        talk.client.close()
        folders.close()


def whole(folder: Path, frames: int) -> bool:
    return len(list(folder.glob("take_*.png"))) == frames


@row("connection cut {} times while frames stream, in {} jobs", "0 lost", (4, 20), (4, 2))
def cut(cuts: int, jobs: int) -> Result:
    lost = made = 0
    with serve() as server, Relay(server.address) as relay, blender(relay.address) as (talk, ask):
        for _ in range(jobs):
            asked, folder = ask(300, 0.0)
            for _ in range(cuts):
                before = len(talk.heard("FramesSaved", asked.job))
                while len(talk.heard("FramesSaved", asked.job)) <= before and not talk.heard(
                    "Done", asked.job
                ):
                    time.sleep(0.002)
                made += bool(not talk.heard("Done", asked.job))
                relay.cut()
            lost += not (type(talk.ending(asked.job)).__name__ == "Done" and whole(folder, 300))
    return f"{lost} of {jobs} jobs lost, {made} cuts while frames came", lost == 0


@row("tunnel that accepts and closes for {} s, 3 jobs", "waits and retries, 0 lost", (10,), (2,))
def tunnel(seconds: int) -> Result:
    with serve() as server, Relay(server.address) as relay:
        relay.down = True
        with blender(relay.address) as (talk, ask):
            jobs = [ask(10) for _ in range(3)]
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(0.1)
                talk.heard("Failed")
            failed, refused = len(talk.heard("Failed")), relay.refused
            relay.down = False
            done = sum(type(talk.ending(asked.job)).__name__ == "Done" for asked, _ in jobs)
    return f"{3 - done} of 3 lost after {refused} refusals", done == 3 and not failed and refused > 0


@row("line of {} bytes a second, 3 frames of 64x32 and a request of 1 MB", "0 lost", (12_000,), (60_000,))
def slow_line(pace: int) -> Result:
    noise = np.random.default_rng(0).bytes(1 << 20)
    with serve() as server, Relay(server.address, pace) as relay, blender(relay.address) as (talk, ask):
        asked, folder = ask(3, 0.0, lambda picture: picture[:-12] + noise + picture[-12:])
        began = time.perf_counter()
        while not (ended := talk.heard("Done", asked.job) or talk.heard("Failed", asked.job)):
            time.sleep(0.1)
        done = type(ended[0]).__name__ == "Done" and whole(folder, 3)
        breaks = len(talk.heard("Interrupted", asked.job))
    return f"{'made whole' if done else 'lost'}, {time.perf_counter() - began:.0f} s, {breaks} breaks", done


SCRIPT = """
import sys, time
from pathlib import Path
from tests.benchmarks._footage import install, module
install()
from tests.addon.servers import Talk, make_request, own_goodbyes
address, folder, name, have = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
talk = Talk(address)
asked = make_request(100, job=name, engine="plain", engine_options={"pause": 0.05})
if have:
    have = len(list(folder.glob("take_*.png")))
    talk.client.adopt(name, module("takes.writer").TakeWriter(folder, "take", 100, have), (64, 32))
else:
    talk.submit(folder, asked)
while not talk.heard("FramesSaved"):
    time.sleep(0.01)
print("frames", flush=True)
while not (ended := talk.heard("Done") + talk.heard("Failed") + talk.heard("Cancelled")):
    time.sleep(0.01)
print(type(ended[0]).__name__, flush=True)
while own_goodbyes().jobs():
    time.sleep(0.01)
"""


@contextmanager
def other_blender(
    address: str, folder: Path, name: str, have: bool
) -> Iterator[tuple[subprocess.Popen, Output]]:
    """A Blender that has its first frames of a job, and what it says from then on; killed at the end."""
    words = [sys.executable, "-c", SCRIPT, address, str(folder), name, str(int(have))]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        said = Output(process.stdout)
        said.line("frames", LONG)
        yield process, said
    finally:
        process.kill()
        process.wait()


def completes(said: Output, folder: Path) -> bool:
    """Whether a Blender gets its job whole."""
    try:
        said.line("Done", LONG)
    except AssertionError:
        return False
    return whole(folder, 100)


def frozen(seconds: int, server_too: bool) -> Result:
    with tempfile.TemporaryDirectory() as name, serve(client_timeout=2.0) as server:
        with other_blender(server.address, Path(name), "frozen", False) as (process, said):
            stopped = [process, server.process] if server_too else [process]
            for each in stopped:
                each.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            for each in stopped:
                each.send_signal(signal.SIGCONT)
            done = completes(said, Path(name))
    return "made whole" if done else "lost", done


@row(
    "client frozen for {} s, given up by the server after 2", "goes on, frames fetched on return", (40,), (5,)
)
def freeze(seconds: int) -> Result:
    return frozen(seconds, server_too=False)


@row("client and server frozen for {} s, as a laptop that sleeps", "goes on", (40,), (5,))
def sleep(seconds: int) -> Result:
    return frozen(seconds, server_too=True)


@row("Blender killed in the middle of a job {} times, begun anew", "picked up, 0 lost", (5,), (1,))
def kill_blenders(rounds: int) -> Result:
    lost = 0
    with serve() as server:
        for turn in range(rounds):
            with tempfile.TemporaryDirectory() as name:
                for have in (False, True):
                    with other_blender(server.address, Path(name), f"job {turn}", have) as (_, said):
                        lost += have and not completes(said, Path(name))
    return f"{lost} of {rounds} lost", lost == 0


@row(
    "{} idle connections at ulimit 1024 and a worker's death", "refused politely, serves on", (1006,), (1006,)
)
def idle(count: int) -> Result:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with serve() as server, server.client() as client, ExitStack() as strangers:
        client.send(request("who", "plain"))
        worker = int(client.ending("who").note)
        client.send(request("long", "plain", num_frames=60, engine_options={"pause": 0.02}))
        client.wait_for(Accepted, job="long")
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (1024, 1024))
        host, port = server.address.removeprefix("tcp://").split(":")
        for _ in range(count):
            strangers.enter_context(socket.create_connection((host, int(port))))
        client.wait_for(Frame, job="long")
        os.kill(worker, signal.SIGKILL)
        whole = client.ending("long").num_frames == 60
        with server.client() as late:
            late.send(request("late", "plain"))
            served = isinstance(late.ending("late"), Done)
    sound = "Traceback" not in server.log
    return "the job was made, a newcomer served", whole and served and sound


# Load and malice


def turns_of(server: ServerProcess, file: Path) -> str:
    server.stop()
    wall, processor = json.loads(file.read_text())
    return f"longest turn {1000 * wall:.0f} ms, {1000 * processor:.0f} ms of it of the processor", processor


@row("{} amplifying messages of 192 kB, another user asks for jobs", "no turn over 20 ms", (200,), (20,))
def amplify(count: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "turns"
        with serve(turns=str(file)) as server, server.client() as flooder, server.client() as other:
            parts = test_hostile.amplifying("a")
            for _ in range(count):
                flooder.send_parts(parts)
            waited = []
            for number in range(5):
                began = time.perf_counter()
                other.send(request(f"{number}", "plain", num_frames=1))
                other.ending(f"{number}")
                waited.append(time.perf_counter() - began)
            while len(flooder.of(Failed)) < count:
                flooder.receive()
            words, processor = turns_of(server, file)
    return f"{words}; another's job {max(waited):.2f} s at most", processor < 0.02


@row("{} hostile messages", "one sentence each at most, 0 exceptions", (10_000,), (300,))
def hostile(count: int) -> Result:
    strange = []
    with serve() as server, server.client(user="fuzz") as client, server.client() as witness:

        @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(test_hostile.hostile)
        def send(parts):
            before = len(client.events)
            client.send_parts(parts or [b""])
            client.welcome()
            told = client.events[before:-1]
            if len(told) > 1 or any(
                not 10 < len(getattr(each, "message", "x" * 11)) <= 2048 for each in told
            ):
                strange.append("+".join(type(each).__name__ for each in told))

        send()
        witness.send(request("mine", "plain"))
        served = isinstance(witness.ending("mine"), Done)
    faults = server.log.count("was not understood") + server.log.count("Traceback")
    odd = f"{len(strange)} odd answers" + "".join(f" ({each})" for each in strange[:3])
    return f"{odd}, {faults} exceptions", not strange and not faults and served


@row("a message that does not end, of a stranger and of somebody let in", "at most 64 MiB for a stranger")
def endless() -> Result:
    with serve() as server, server.client() as client:
        before = most_memory(server)
        host, port = server.address.removeprefix("tcp://").split(":")
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
        for _ in range(20):
            with socket.create_connection((host, int(port))) as stranger:
                try:
                    stranger.sendall(greeting + b"\x06" + (60 << 20).to_bytes(8, "big"))
                    for _ in range(60):
                        stranger.sendall(bytes(1 << 20))
                except OSError:
                    continue
        client.welcome()
        strangers = most_memory(server) - before
        monitor = client.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        client.socket.send_multipart([bytes(60_000)] * 30_000, copy=False)  # 1.8 GB
        ended = bool(monitor.poll(60_000))
        client.socket.disable_monitor()
        known = most_memory(server) - before
        with server.client() as other:
            served = bool(other.welcome())
    words = f"+{strangers >> 20} MiB by strangers, +{known >> 20} MiB by one let in, who is cut off"
    return words, ended and served and strangers < 64 << 20


@row("{} jobs of one client, one after the other", "+1 MiB", (500,), (50,))
def many_jobs(count: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "turns"
        with serve(turns=str(file)) as server, server.client() as client:
            for number in range(count + 50):
                if number == 50:
                    before = memory(server)
                client.send(request(f"{number}", "plain"))
                client.ending(f"{number}")
                client.send(Received(job=f"{number}"))
                client.wait_for(Forgotten)
                client.events.clear()
            grown = memory(server) - before
            words, _ = turns_of(server, file)
    return f"{grown / (1 << 20):+.1f} MiB; {words}", grown < 4 << 20


@row(
    "{} jobs of one client at once",
    "queued up to a limit of 1,024, then refused with the number",
    (1100,),
    (1100,),
)
def one_clients_queue(count: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "turns"
        with serve(turns=str(file)) as server, server.client() as client:
            client.send(request("long", "plain", num_frames=1000, engine_options={"pause": 1.0}))
            client.wait_for(Frame)
            for number in range(count):
                client.send(request(f"{number}", "plain"))
            while len(client.of(Accepted, Failed)) < count + 1:
                client.receive()
            refused = client.of(Failed)
            words, processor = turns_of(server, file)
    said = all("1024 of your jobs wait already" in each.message for each in refused)
    right = len(refused) == count - 1024 and said and processor < 0.02
    return f"{count - len(refused)} queued, {len(refused)} refused; {words}", right


@row("{} clients at once", "Jain's index 1.0", (50,), (10,))
def fairness(count: int) -> Result:
    each = 4
    with serve() as server, ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(count)]
        for client in clients:
            for number in range(each):
                client.send(request(f"{number}", "plain", num_frames=1))
        for client in clients:
            while len(client.of(Accepted)) < each:
                client.receive()
        done = [0] * count
        while sum(done) < count * each // 2:
            for place, client in enumerate(clients):
                while client.socket.poll(0):
                    client.receive()
                done[place] = len(client.of(Done))
            time.sleep(0.002)
    index = sum(done) ** 2 / (count * sum(number**2 for number in done))
    return f"Jain's index {index:.3f} at half of the jobs", index > 0.95


@row("{} connections of one key with jobs, another user asks", "turns by key", (300,), (30,))
def identities(count: int) -> Result:
    with serve(max_connections=1000) as server, server.client() as other, ExitStack() as stack:
        for number in range(count):
            client = stack.enter_context(server.client(user="crowd"))
            client.send(request(f"left {number}", "plain", num_frames=20, engine_options={"pause": 0.05}))
            client.wait_for(Accepted)
        began = time.perf_counter()
        other.send(request("mine", "plain"))
        position = other.wait_for(Queued).position
        other.ending("mine")
        seconds = time.perf_counter() - began
    return f"{position} before it, done after {seconds:.1f} s", position <= 1


@row("{} jobs cancelled as soon as they are asked for", "each is answered, nothing is kept", (1000,), (100,))
def cancel_storm(count: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        with serve(jobs=folder) as server, server.client() as client:
            for number in range(count):
                client.send(request(f"{number}", "plain"))
                client.send(Cancel(job=f"{number}"))
            spoken = time.monotonic()
            while len(client.of(Cancelled, Forgotten)) < count:
                if time.monotonic() - spoken > 5:  # else it counts as gone after a minute
                    client.send(Hello(client="test"))
                    spoken = time.monotonic()
                client.receive()
            jobs = client.welcome().jobs
        left = [path.name for path in Path(folder).iterdir() if path.is_dir()]
    return f"{count} answers, {jobs + len(left)} jobs left", not jobs and not left


@row("client connected, nothing to do, for {} s", "0 % of a processor", (20,), (4,))
def idleness(seconds: int) -> Result:
    def spent(process: int) -> float:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with serve() as server, server.client() as client:
        client.welcome()
        before, end = spent(server.process.pid), time.monotonic() + seconds
        while time.monotonic() < end:
            client.send(Hello())
            client.receive()
            time.sleep(2.0)
        share = (spent(server.process.pid) - before) / seconds
    return f"{100 * share:.2f} %", share < 0.01


# The store


@row("store's writer killed at {} moments", "0 lines lost", (2000,), (50,))
def kill_writers(kills: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "tests.server.store_kills", str(Path(folder) / "jobs"), str(kills)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=3600)
    return done.stdout.strip() or done.stderr[-200:], done.returncode == 0


@row("broker and store in {} random orders of 50 events", "nothing lost or made twice", (1000,), (30,))
def broker_in_any_order(tries: int) -> Result:
    run_state_machine_as_test(
        AnyOrder, settings=settings(max_examples=tries, stateful_step_count=50, deadline=None)
    )
    return "nothing lost or made twice", True


@row("client in {} random orders of 50 events", "nothing lost or asked for twice", (500,), (20,))
def client_in_any_order(tries: int) -> Result:
    install()
    from tests.addon.any_order import AnyOrder as ClientInAnyOrder

    run_state_machine_as_test(
        ClientInAnyOrder, settings=settings(max_examples=tries, stateful_step_count=50, deadline=None)
    )
    return "nothing lost or asked for twice", True


@row("server with {} waiting jobs started", "less than 2 s more than without", (1000,), (1000,))
def restart(count: int) -> Result:
    def start(folder: Path) -> float:
        times = []
        for _ in range(3):
            began = time.perf_counter()
            with serve(jobs=str(folder)) as server:
                times.append(time.perf_counter() - began)
                server.process.kill()  # what is made by then is little
        return statistics.median(times)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = JobStore(folder / "many", 32 << 30)
        for number in range(count):
            asked = request(f"{number}", "plain", num_frames=1000, engine_options={"pause": 1.0})
            store.add(b"user", asked.job, "plain", [bytes(part) for part in wire.encode(asked)])
        store.close()
        many, none = start(folder / "many"), start(folder / "none")
    return f"{many:.2f} s, without any {none:.2f} s", many - none < 2


# What tests show as it is


def tests(*names: str) -> Result:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *names]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=3600)
    return done.stdout.strip().rpartition("\n")[2].partition(" passed")[
        0
    ] + " tests pass", done.returncode == 0


@row(
    "result frames of 20,000 x 20,000 pixels, too heavy, too deep, no picture",
    "refused before they are written",
)
def huge_pictures() -> Result:
    return tests("tests/addon/test_connection_client.py", "-k", "job_that_fails_says_why")


@row("first frame turned by EXIF", "orientation the same on both sides")
def turned_pictures() -> Result:
    return tests("tests/server/test_pictures.py")


@row("another local user, a stranger in the network", "not answered")
def strangers() -> Result:
    return tests("tests/server/test_keys.py")


@row("`build.py serve` stopped by TERM, INT, KILL", "no orphan, no folder left")
def orphans() -> Result:
    return tests("tests/test_build.py", "tests/server/test_process.py", "-k", "serve or signal or killed")


@row("full disk in the middle of each write, damaged files", "one sentence, nothing else lost")
def disks() -> Result:
    return tests("tests/server/test_store.py", "tests/server/test_disk.py")
