"""The jobs on disk: nothing said to be kept is lost, whatever ends the process and whatever becomes of the
disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inference_server.broker import ServerError
from inference_server.broker.store import JobStore, StoreFull

from .client import ROOT
from .store_kills import ENDING, QUOTA, REQUEST, frame


def states(store: JobStore) -> dict[str, tuple[str, int]]:
    return {job.id: (job.state, job.frames) for job in store.jobs()}


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def store(folder):
    store = JobStore(folder, QUOTA)
    yield store
    store.close()


def reopened(store: JobStore) -> JobStore:
    store.close()
    store.__init__(store.folder, store.quota_bytes)
    return store


def test_jobs_come_back_as_they_were(store):
    for id in ("a", "b", "c"):
        store.add(b"client", id, "plain", REQUEST)
    a, b, c = store.jobs()
    store.set_state(a.number, "running")
    for index in range(3):
        store.add_frame(a.number, index, frame(index))
    store.set_state(b.number, "running")
    store.end(b.number, ENDING)
    assert store.count_death(a.number) == 1
    store.set_state(a.number, "running")

    store = reopened(store)
    assert states(store) == {"a": ("running", 3), "b": ("ended", 0), "c": ("waiting", 0)}
    assert store.find(b"client", "a").deaths == 1 and store.find(b"other", "a") is None
    assert store.request(a.number) == store.request(c.number) == REQUEST
    assert store.ending(b.number) == ENDING
    assert [store.frame(a.number, index) for index in range(3)] == [frame(index) for index in range(3)]
    store.forget(a.number)
    assert states(reopened(store)) == {"b": ("ended", 0), "c": ("waiting", 0)}


def test_a_forgotten_job_leaves_no_file(store, folder):
    before = set(folder.rglob("*"))
    job = store.add(b"client", "a", "plain", REQUEST)
    store.add_frame(job.number, 0, frame(0))
    store.forget(job.number)
    assert set(folder.rglob("*")) == before and store.bytes == 0


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_only_its_user_can_look_into_it(folder):
    """Even where somebody else has made it, or has loosened it since."""
    for _ in range(2):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        JobStore(folder, QUOTA).close()
        assert folder.stat().st_mode & 0o077 == 0


def test_two_servers_never_share_it(store, folder):
    with pytest.raises(ServerError, match="Another server uses the jobs in"):
        JobStore(folder, QUOTA)


def test_a_damaged_frame_counts_as_never_made(store, folder):
    job = store.add(b"client", "a", "plain", REQUEST)
    for index in range(4):
        store.add_frame(job.number, index, frame(index))
    (file,) = folder.glob("*/2")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert store.frame(job.number, 1) == frame(1)
    with pytest.raises(ValueError, match="frame 2 is damaged"):
        store.frame(job.number, 2)
    assert store.job(job.number).frames == 2


def test_a_damaged_request_is_told(store, folder):
    job = store.add(b"client", "a", "plain", REQUEST)
    (file,) = folder.glob("*/request")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ValueError, match="cut off"):
        store.request(job.number)


@pytest.mark.parametrize("damage", ["garbage", "cut", "gone", "page"])
def test_a_damaged_list_is_made_anew_from_the_files(store, folder, damage):
    for id in ("a", "b"):
        store.add(b"client", id, "plain", REQUEST)
    a, b = store.jobs()
    for index in range(3):
        store.add_frame(a.number, index, frame(index))
    store.end(b.number, ENDING)
    store.close()
    path = folder / "jobs.sqlite"
    data = bytearray(path.read_bytes())
    if damage == "garbage":
        data[:] = os.urandom(len(data))
    elif damage == "cut":
        del data[5000:]
    elif damage == "page":
        data[4096:8192] = os.urandom(4096)
    path.unlink() if damage == "gone" else path.write_bytes(data)
    store.__init__(folder, QUOTA)
    assert states(store) == {"a": ("waiting", 3), "b": ("ended", 0)}
    a, b = store.jobs()
    assert store.request(a.number) == REQUEST and store.ending(b.number) == ENDING
    assert store.frame(a.number, 2) == frame(2)
    assert bool(list(folder.glob("damaged-*"))) == (damage != "gone")


def test_what_is_not_a_list_of_this_release_is_left_alone(store, folder):
    store._database.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(ServerError, match="another release"):
        store.__init__(folder, QUOTA)
    assert not list(folder.glob("damaged-*"))
    (folder / "jobs.sqlite").unlink()
    store.__init__(folder, QUOTA)


def test_a_new_job_needs_room_and_what_ended_longest_ago_can_make_it(folder):
    size = sum(map(len, REQUEST))
    store = JobStore(folder, 4 * size + 200)  # a frame's file is a little larger than the frame
    try:
        for id in ("a", "b"):
            job = store.add(b"client", id, "plain", REQUEST)
            store.add_frame(job.number, 0, [bytes(size)])
            store.end(job.number, ENDING)
        assert not store.in_the_way(size)
        store.add(b"client", "c", "plain", REQUEST)
        assert [job.id for job in store.in_the_way(2 * size)] == ["a"]
        assert [job.id for job in store.in_the_way(9 * size)] == ["a", "b"]
        with pytest.raises(StoreFull, match="wait until some are done"):
            store.add(b"client", "d", "plain", [bytes(2 * size)])
        assert not store.make_room(9 * size) and set(states(store)) == {"a", "b", "c"}, "it'd be for nothing"
        assert [job.id for job in store.make_room(2 * size)] == ["a"]
        store.add(b"client", "d", "plain", [bytes(2 * size)])
        assert set(states(store)) == {"b", "c", "d"}
    finally:
        store.close()


def test_a_full_disk_refuses_a_job_and_breaks_nothing(store, folder, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("inference_server.broker.store._write_file", full)
        with pytest.raises(StoreFull, match="No space left on device"):
            store.add(b"client", "a", "plain", REQUEST)
    store.add(b"client", "a", "plain", REQUEST)
    assert states(reopened(store)) == {"a": ("waiting", 0)}


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_kill_at_any_moment_loses_nothing_that_was_said(folder):
    """Short here; `python build.py bench endurance` does it hundreds of times."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.server.store_kills", folder, "40"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout.endswith("lines held after 40 kills\n"), done.stderr
