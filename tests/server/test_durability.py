"""A server that is killed or stopped loses no job: the next one on the same folder goes on."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from shared.messages import Accepted, Done, Failed, Frame, Hello, Queued, Received, Resume

from .client import Client, ServerProcess, request
from .engines import ENGINES
from .processes import wait_for_end

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture
def jobs(tmp_path) -> Path:
    return tmp_path / "jobs"


def start(jobs: Path, **settings) -> ServerProcess:
    return ServerProcess(ENGINES, jobs=str(jobs), **settings)


def submit(client: Client, *names: str, num_frames: int = 30) -> None:
    for name in names:
        client.send(request(name, "plain", num_frames=num_frames, engine_options={"pause": 0.03}))
        client.wait_for(Accepted, job=name)


def frames(client: Client, job: str) -> list[int]:
    return [frame.index for frame in client.of(Frame, job=job)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_next_server_goes_on_with_every_job(jobs, number):
    with start(jobs) as server, server.client(user="blender") as client:
        submit(client, "running", "waiting", "waiting too")
        client.wait_for(Frame, job="running")
        before = frames(client, "running")
        server.process.send_signal(number)
        assert server.wait() == (0 if number == signal.SIGTERM else -number)
        assert not client.of(Failed)
    with start(jobs) as server, server.client(user="blender") as client:
        for name, have in (("running", len(before)), ("waiting", 0), ("waiting too", 0)):
            client.send(Resume(job=name, have=have))
        assert isinstance(client.ending("running"), Done), "what ran before comes first"
        for name in ("waiting", "waiting too"):
            assert isinstance(client.ending(name), Done)
            assert frames(client, name) == list(range(30))
        assert before + frames(client, "running") == list(range(30)), "no frame is missing, none comes twice"


def test_jobs_run_to_their_end_though_nobody_asks(jobs):
    with start(jobs) as server, server.client(user="blender") as client:
        submit(client, "a", "b")
        server.process.kill()
        server.wait()
    with start(jobs) as server:
        with server.client(user="somebody-else") as witness:
            while witness.welcome().jobs:
                pass
        server.process.kill()
        server.wait()
    with start(jobs) as server, server.client(user="blender") as client:
        for name in ("a", "b"):
            client.send(Resume(job=name, have=0))
            assert client.ending(name).num_frames == 30
            assert frames(client, name) == list(range(30))
            client.send(Received(job=name))
        client.welcome()
    assert {path.name for path in jobs.iterdir()} <= {"jobs.sqlite", "lock"}, "what was fetched is gone"


def test_a_job_that_was_running_each_time_the_server_died_is_set_aside(jobs):
    for _ in range(3):
        with start(jobs) as server, server.client(user="blender") as client:
            if _ == 0:
                submit(client, "heavy", num_frames=1000)
                submit(client, "light")
            else:
                client.send(Resume(job="heavy", have=0))
            client.wait_for(Frame, job="heavy")
            server.process.kill()
            server.wait()
    for _ in range(2):
        with start(jobs) as server, server.client(user="blender") as client:
            client.send(Resume(job="heavy", have=0))
            failed = client.ending("heavy")
            assert failed.code == "worker" and "set aside" in failed.message
            assert failed.message.values == {"count": 3}, "the sentence can be translated, also when kept"
    with start(jobs) as server, server.client(user="blender") as client:
        client.send(Resume(job="light", have=0))
        assert isinstance(client.ending("light"), Done)


def test_being_stopped_in_good_order_counts_for_nothing(jobs):
    for _ in range(5):
        with start(jobs) as server, server.client(user="blender") as client:
            if _ == 0:
                submit(client, "long", num_frames=40)
            else:
                client.send(Resume(job="long", have=0))
            client.wait_for(Frame, job="long")
            assert server.stop() == 0
    with start(jobs) as server, server.client(user="blender") as client:
        client.send(Resume(job="long", have=0))
        assert client.ending("long").num_frames == 40


def test_a_cancelled_job_does_not_come_back(jobs):
    with start(jobs) as server, server.client(user="blender") as client:
        submit(client, "running", "waiting")
        for name in ("running", "waiting"):
            client.cancel(name)
            client.ending(name)
        server.process.kill()
        server.wait()
    with start(jobs) as server, server.client(user="blender") as client:
        assert client.welcome().jobs == 0
        for name in ("running", "waiting"):
            client.send(Resume(job=name, have=0))
            assert client.wait_for(Failed, job=name).code == "unknown"


def test_a_connected_client_sees_the_next_server_go_on(jobs):
    """As Blender does: the socket reconnects by itself and asks for what is missing."""
    with start(jobs) as server:
        address = server.address
        with server.client(user="blender") as client:
            submit(client, "a", num_frames=60)
            client.wait_for(Frame)
            server.process.kill()
            server.wait()
            with ServerProcess(ENGINES, jobs=str(jobs), address=address):
                client.send(Resume(job="a", have=len(client.of(Frame))))
                assert client.ending("a").num_frames == 60
                assert frames(client, "a") == list(range(60))


def test_a_clock_that_was_set_loses_nothing(jobs):
    """Back by an hour, so that a clip was done in the future, and on by a month."""
    names = {"ahead": 3600, "long ago": -30 * 86400}
    with start(jobs) as server, server.client(user="blender") as client:
        submit(client, *names, num_frames=3)
        for name in names:
            client.ending(name)
        assert server.stop() == 0
    with closing(sqlite3.connect(jobs / "jobs.sqlite")) as table, table:
        for name, seconds in names.items():
            table.execute("UPDATE jobs SET changed = changed + ? WHERE id = ?", (seconds, name))
    with start(jobs) as server, server.client(user="blender") as client:
        for name in names:
            client.send(Resume(job=name, have=0))
            assert client.ending(name).num_frames == 3
            assert frames(client, name) == [0, 1, 2]


def test_two_servers_do_not_share_a_folder(jobs):
    with start(jobs):
        with pytest.raises(RuntimeError, match="Another server uses the jobs in"):
            start(jobs)


def test_a_thousand_waiting_jobs_are_taken_up_in_order(jobs):
    count = 1000 if os.environ.get("POSEANYTHING_KILLS") else 100
    with start(jobs) as server, server.client(user="blender") as client:
        client.send(request("long", "plain", num_frames=1000, engine_options={"pause": 0.05}))
        client.wait_for(Frame)
        for number in range(count):
            client.send(request(str(number), "plain"))
        client.wait_for(Accepted, job=str(count - 1))
        server.process.kill()
        server.wait()
    with start(jobs) as server, server.client(user="blender") as client:
        assert client.welcome().jobs == count + 1
        client.send(Hello())
        client.send(Resume(job="0", have=0))
        assert client.wait_for(Queued, job="0").position == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_server_leaves_no_process_and_no_folder_behind(jobs, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    with start(jobs) as server, server.client() as client:
        client.send(request("who", "plain"))
        worker = int(client.ending("who").note)
        server.process.kill()
        server.wait()
        wait_for_end(worker)
    assert not list((tmp_path / "tmp").iterdir())
