"""Jobs against kills: how many are lost when the server or its engine's process is ended again and again.

A client holds one running and three waiting clips of small ready-made frames. Each round ends a process; then
every clip must arrive whole, each frame once. Who writes to the store is killed at random moments, a hundred
times as often; broker and store go through random orders of events; and the start of a server that has a
thousand jobs is held against that of one without any.

    python build.py bench endurance --rounds 20

Left out: power failures, and networks.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from inference_server.broker.store import JobStore
from shared import wire
from shared.messages import Accepted, Done, Frame, Received, Resume
from tests.server.any_order import AnyOrder
from tests.server.client import Client, ServerProcess, request

ENGINES = {"plain": "tests.server.engines:Plain"}
FRAMES, WAITING = 12, 3


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
    frames = have + [frame.index for frame in client.of(Frame, job=name)[before:]]
    return isinstance(done, Done) and frames == list(range(FRAMES))


def end_servers(folder: Path, number: signal.Signals, rounds: int) -> tuple[int, int, float]:
    """Jobs lost, all jobs, and median-like mean seconds from a server's start to its being ready."""
    lost = total = 0
    starting = 0.0
    for turn in range(rounds):
        with ServerProcess(ENGINES, jobs=str(folder)) as server, server.client(user="user") as client:
            names = submit(client, f"{number.name} {turn}")
            client.wait_for(Frame, job=names[0])
            have = {name: [frame.index for frame in client.of(Frame, job=name)] for name in names}
            server.process.send_signal(number)
            server.wait()
        began = time.perf_counter()
        with ServerProcess(ENGINES, jobs=str(folder)) as server, server.client(user="user") as client:
            starting += time.perf_counter() - began
            lost += sum(not fetch(client, name, have[name]) for name in names)
        total += len(names)
    return lost, total, starting / rounds


def end_workers(rounds: int) -> tuple[int, int, float]:
    """Jobs lost, all jobs, and mean seconds from a worker's death to the next frame."""
    lost = total = 0
    recovering = 0.0
    with ServerProcess(ENGINES) as server, server.client(user="user") as client:
        for turn in range(rounds):
            client.send(request(f"who {turn}", "plain"))
            worker = int(client.ending(f"who {turn}").note)
            names = submit(client, f"worker {turn}")
            client.wait_for(Frame, job=names[0])
            os.kill(worker, signal.SIGKILL)
            killed = time.perf_counter()
            first = client.ending(names[0])
            recovering += time.perf_counter() - killed
            endings = [first, *map(client.ending, names[1:])]
            for name, ending in zip(names, endings, strict=True):
                frames = [frame.index for frame in client.of(Frame, job=name)]
                lost += not (isinstance(ending, Done) and frames == list(range(FRAMES)))
            total += len(names)
            client.events.clear()
    return lost, total, recovering / rounds


def kill_writers(kills: int) -> str:
    """What became of a store whose writer was killed so often."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "tests.server.store_kills", str(Path(folder) / "jobs"), str(kills)]
        done = subprocess.run(words, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr


def restart(count: int, tries: int = 3) -> tuple[float, float]:
    """Median seconds from a server's start to its being ready, with so many jobs and without any."""

    def start(folder: Path) -> float:
        times = []
        for _ in range(tries):
            began = time.perf_counter()
            with ServerProcess(ENGINES, jobs=str(folder)) as server:
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
        return start(folder / "many"), start(folder / "none")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="kills of each kind (default: %(default)s)")
    rounds = parser.parse_args().rounds
    print(f"{rounds} rounds, {1 + WAITING} jobs in each")
    print(f"{'ended':34} {'lost':>5} {'of':>5}   seconds")
    with tempfile.TemporaryDirectory() as folder:
        for number, what in ((signal.SIGKILL, "server, by SIGKILL"), (signal.SIGTERM, "server, by SIGTERM")):
            lost, total, seconds = end_servers(Path(folder) / number.name, number, rounds)
            print(f"{what:34} {lost:5} {total:5}   {seconds:.2f} until the next one is ready", flush=True)
    lost, total, seconds = end_workers(rounds)
    print(f"{'engine process, by SIGKILL':34} {lost:5} {total:5}   {seconds:.2f} until its job is done")
    print(f"store: {kill_writers(100 * rounds)}", flush=True)
    run_state_machine_as_test(
        AnyOrder, settings=settings(max_examples=20 * rounds, stateful_step_count=50, deadline=None)
    )
    print(
        f"broker and store: {20 * rounds} random orders of 50 events, nothing lost or made twice", flush=True
    )
    many, none = restart(1000)
    print(f"start with 1,000 jobs that wait: {many:.2f} s, without any {none:.2f} s")


if __name__ == "__main__":
    main()
