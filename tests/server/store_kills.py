"""`python -m tests.server.store_kills FOLDER KILLS` kills who writes to a store at random moments, and looks
whether all is there that was said to be kept.

A process of its own, so that it can be forked for each kill without threads: that takes milliseconds.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from inference_server.broker.store import JobStore

QUOTA = 1 << 30
REQUEST = [b"header", b"picture" * 1000, b""]
ENDING = [b"done"]
STATES = ("waiting", "running", "ended")


def frame(index: int) -> list[bytes]:
    return [b"frame %d" % index, bytes([index % 256]) * 5000]


def work(folder: Path, run: int, pipe: int) -> None:
    """Write to the store for ever, saying line by line what is kept by now."""

    def say(*words: object) -> None:
        os.write(pipe, (" ".join(map(str, words)) + "\n").encode())

    store = JobStore(folder, QUOTA)
    say("open")
    for number in range(1_000_000):
        job = store.add(b"client", f"{run}-{number}", "plain", REQUEST)
        say("added", job.id)
        store.set_state(job.number, "running")
        say("running", job.id)
        for index in range(3):
            store.add_frame(job.number, index, frame(index))
            say("frame", job.id, index + 1)
        if number % 3 == 1:
            store.end(job.number, ENDING)
            say("ended", job.id)
        if number % 3 == 2:
            say("forgetting", job.id)
            store.forget(job.number)
            say("forgotten", job.id)


def kill_one(folder: Path, run: int, after: int, pause: float) -> list[list[str]]:
    """The lines that a writer has said until it was killed, a pause of seconds after so many lines."""
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            work(folder, run, write)
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as said:
        lines = [said.readline() for _ in range(1 + after)]
        time.sleep(pause)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        lines += said.readlines()
    return [line.split() for line in lines if line.endswith("\n")]


def check(folder: Path, run: int, lines: list[list[str]]) -> int:
    """Hold the store against what was said; returns how many lines that were. Empties it."""
    said: dict[str, tuple[str, int]] = {}
    forgetting = set()
    for what, id, *count in (line for line in lines if line[0] != "open"):
        state, frames = said.get(id, ("waiting", 0))
        if what in STATES:
            state = what
        elif what == "frame":
            frames = int(*count)
        elif what == "forgetting":
            forgetting.add(id)
        said[id] = state, frames
        if what == "forgotten":
            del said[id]
    store = JobStore(folder, QUOTA)
    found = {job.id: job for job in store.jobs()}
    for id, (state, frames) in said.items():
        if id not in found:
            assert id in forgetting, f"{id} is lost"  # else it was just being dropped
            continue
        job = found[id]
        assert STATES.index(job.state) >= STATES.index(state), (id, state, job)
        assert job.frames >= frames, (id, frames, job)
    for job in found.values():
        assert job.id.startswith(f"{run}-"), f"{job.id} came back"
        assert all(store.frame(job.number, index) == frame(index) for index in range(job.frames))
        if job.state == "ended":
            assert store.ending(job.number) == ENDING
        else:
            assert store.request(job.number) == REQUEST
        store.forget(job.number)
    left = {path.name for path in folder.iterdir()}
    assert left <= {"jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm", "lock"}, left
    store.close()
    return len(lines)


def main(folder: Path, kills: int) -> None:
    rng = random.Random(1)
    lines = 0
    for run in range(kills):
        said = kill_one(folder, run, rng.randrange(24), rng.uniform(0, 0.005))
        lines += check(folder, run, said)
    print(f"{lines} lines held after {kills} kills")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
