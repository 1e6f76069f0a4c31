"""A disk that is full in the middle of a write, or takes nothing: one sentence, and nothing else is lost."""

from __future__ import annotations

import sqlite3

import pytest

from inference_server.broker import ServerError
from inference_server.broker import store as store_module
from inference_server.broker.store import JobStore, StoreFull
from shared.messages import Done, Frame, Resume

from .client import ServerProcess, request
from .engines import ENGINES
from .store_kills import ENDING, QUOTA, REQUEST, frame

FULL = OSError(28, "No space left on device")
WRITES = {
    "add": lambda store, job: store.add(b"client", "next", "plain", REQUEST),
    "add_frame": lambda store, job: store.add_frame(job, 1, frame(1)),
    "set_state": lambda store, job: store.set_state(job, "running"),
    "count_death": lambda store, job: store.count_death(job),
    "end": lambda store, job: store.end(job, ENDING),
    "forget": lambda store, job: store.forget(job),
}
"""Each leaves of a job with one frame what it was, where it fails."""


def half_written(path, pieces, durable):
    path.write_bytes(b"".join(map(bytes, pieces))[:-3])
    raise FULL


def read_only(store: JobStore) -> None:
    """The list of jobs can't be written to any more; it says so as a full disk does."""
    store._database.execute("PRAGMA query_only = ON")


@pytest.mark.parametrize("where", ["files", "list"])
@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_fails_changes_nothing(tmp_path, monkeypatch, write, where):
    store = JobStore(tmp_path, QUOTA)
    job = store.add(b"client", "first", "plain", REQUEST).number
    store.add_frame(job, 0, frame(0))
    with monkeypatch.context() as patch:
        if where == "files":
            patch.setattr(store_module, "_write_file", half_written)
        else:
            read_only(store)
        if where == "list" or write in ("add", "add_frame", "end"):
            with pytest.raises((OSError, StoreFull)):
                WRITES[write](store, job)
        store.close()
    store = JobStore(tmp_path, QUOTA)
    (kept,) = store.jobs()
    assert (kept.id, kept.frames, kept.deaths) == ("first", 1, 0)
    assert kept.state == "waiting" and store.request(kept.number) == REQUEST
    assert store.frame(kept.number, 0) == frame(0)
    WRITES[write](store, kept.number)
    store.close()


def test_a_job_begins_though_that_can_not_be_noted(tmp_path):
    store = JobStore(tmp_path, QUOTA)
    job = store.add(b"client", "first", "plain", REQUEST).number
    read_only(store)
    assert store.begin(job) == REQUEST
    store.close()


def test_a_list_that_is_locked_or_of_a_newer_release_is_left_alone(tmp_path):
    JobStore(tmp_path, QUOTA).close()
    other = sqlite3.connect(tmp_path / "jobs.sqlite")
    other.execute("PRAGMA user_version = 99")
    other.close()
    before = (tmp_path / "jobs.sqlite").read_bytes()
    with pytest.raises(ServerError, match="another release"):
        JobStore(tmp_path, QUOTA)
    assert (tmp_path / "jobs.sqlite").read_bytes() == before


def test_a_folder_that_can_not_be_used_is_one_sentence(tmp_path):
    """Here as there is a file in its place: who runs the tests as root may write to all folders."""
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(RuntimeError, match="name another folder with --jobs") as error:
        ServerProcess(ENGINES, jobs=str(file / "jobs"))
    assert "Traceback" not in str(error.value)


def test_names_with_spaces_and_letters_of_all_kinds(tmp_path):
    """Of the folder, the job and the user's text."""
    folder = tmp_path / "Jobs of Zoë, 作業 №1"
    job = "шот 1 / 🎬"
    with ServerProcess(ENGINES, jobs=str(folder)) as server, server.client(user="user") as client:
        client.send(request(job, "plain", prompt="a fox — 狐"))
        assert isinstance(client.ending(job), Done)
        server.process.kill()
        server.wait()
    with ServerProcess(ENGINES, jobs=str(folder)) as server, server.client(user="user") as client:
        client.send(Resume(job=job, have=0))
        assert isinstance(client.ending(job), Done) and len(client.of(Frame)) == 5
