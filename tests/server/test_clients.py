"""Clients that are slow, vanish, come back, or claim to be another."""

from __future__ import annotations

import sys
import time

import pytest

from shared.messages import ENDINGS, Accepted, Done, Failed, Frame, Hello, Queued, Received, Resume

from .client import PATIENCE, Client, ServerProcess, most_memory, request
from .engines import ENGINES

FAR_TOO_MANY = {"num_frames": 300, "width": 512, "height": 512, "frame_format": "raw"}
"""A clip of 236 MB: no socket's buffers hold a tenth of it."""


@pytest.fixture(scope="module")
def server():
    """A server that is quick to give clients up."""
    with ServerProcess(ENGINES, client_timeout=3.0, cancel_grace=1.0) as process:
        yield process
        assert process.process.poll() is None, process.log


def wait_until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def speak(*clients: Client) -> None:
    for client in clients:
        client.send(Hello())


def ending(client: Client, job: str):
    """How a job ends, for a client that says every now and then that it is there: else it is given up."""
    deadline = time.monotonic() + PATIENCE
    while not client.of(*ENDINGS, job=job):
        speak(client)
        if client.socket.poll(500):
            client.receive()
        assert time.monotonic() < deadline, f"{job} does not end; so far: {client.events[-20:]}"
    return client.of(*ENDINGS, job=job)[-1]


def test_a_client_that_takes_no_frames_holds_up_nobody_and_loses_none(server):
    with server.client(receive_limit=1) as slow, server.client() as other:
        slow.send(request("big", "plain", **FAR_TOO_MANY))
        slow.wait_for(Accepted)
        other.send(request("small", "plain"))
        assert isinstance(ending(other, "small"), Done), "the clip is made, and waits on the server's disk"
        while not slow.of(Done):
            slow.receive()
            speak(slow)
        frames = slow.of(Frame)
    assert [frame.index for frame in frames] == list(range(300))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_waits_for_a_client_takes_no_memory(server):
    before = most_memory(server)
    with server.client(receive_limit=1) as slow, server.client() as other:
        slow.send(request("big", "plain", **FAR_TOO_MANY))
        slow.wait_for(Accepted)
        other.send(request("small", "plain"))
        ending(other, "small")
        assert most_memory(server) < before + (64 << 20)
        slow.cancel("big")


def resume(client: Client, job: str, have: int) -> list[int]:
    """The frames that come after the first `have`, up to the job's end."""
    client.send(Resume(job=job, have=have))
    client.wait_for(Accepted, job=job)
    before = len(client.of(Frame, job=job))
    client.ending(job)
    return [frame.index for frame in client.of(Frame, job=job)[before:]]


def test_the_jobs_of_a_client_that_vanishes_go_on_and_are_fetched_later(server):
    with server.client(user="blender-0") as gone:
        for job in ("running", "waiting"):
            gone.send(request(job, "plain", num_frames=60, engine_options={"pause": 0.03}))
        gone.wait_for(Frame)
        have = len(gone.of(Frame))
    with server.client() as witness:
        wait_until(lambda: witness.welcome().jobs == 0)
    with server.client(user="blender-0") as back:
        assert resume(back, "running", have) == list(range(have, 60))
        assert resume(back, "waiting", 0) == list(range(60))
        back.send(Received(job="running"))
        back.send(Resume(job="running", have=0))
        failed = back.wait_for(Failed)
        assert (failed.job, failed.code) == ("running", "unknown")


def test_a_clients_clips_are_fetched_in_turns(server):
    with server.client(user="blender-2") as gone:
        for job in ("one", "other"):
            gone.send(request(job, "plain", num_frames=200))
            gone.wait_for(Accepted, job=job)
    with server.client() as witness:
        wait_until(lambda: witness.welcome().jobs == 0)
    with server.client(user="blender-2") as back:
        for job in ("one", "other"):
            back.send(Resume(job=job, have=0))
        for job in ("one", "other"):
            back.ending(job)
        order = [frame.job for frame in back.of(Frame)]
    assert order.index("other") < 100 < order.index("one", 150)


def test_a_job_is_only_its_clients(server):
    with server.client(user="owner") as owner, server.client() as other:
        owner.send(request("mine", "plain"))
        owner.ending("mine")
        other.send(Received(job="mine"))
        other.send(Resume(job="mine", have=0))
        assert other.wait_for(Failed).code == "unknown"
        assert resume(owner, "mine", 4) == [4]


def test_a_client_that_comes_back_in_time_goes_on(server):
    with server.client(user="blender-1") as before:
        before.send(request("job", "plain", num_frames=20, engine_options={"pause": 0.1}))
        before.wait_for(Frame)
    with server.client(user="blender-1") as after:
        after.send(Resume(job="job", have=len(before.of(Frame))))
        while not after.of(Done):
            speak(after)
            after.receive()
        frames = [frame.index for frame in after.of(Frame)]
    assert frames == list(range(len(before.of(Frame)), 20))


def test_a_silent_client_keeps_its_job_by_saying_hello(server):
    with server.client() as client:
        client.send(request("long", "plain", num_frames=40, engine_options={"pause": 0.1}))
        while not client.of(Done, Failed):
            speak(client)
            client.receive()
        assert client.of(Done)


def test_a_job_goes_on_where_its_user_asked_for_it_last(server):
    """Two connections of one user, as of two Blenders."""
    with server.client(user="twin") as first, server.client(user="twin") as second:
        first.send(request("job", "plain", num_frames=40, engine_options={"pause": 0.05}))
        first.wait_for(Frame)
        assert resume(second, "job", 1) == list(range(1, 40))
        assert first.welcome() and not first.of(Done)


def test_turns_go_by_user_however_many_connections_there_are(server):
    """300 connections of one key come and go, some leave jobs behind: another's turn is next all the same."""
    with server.client() as other:
        for number in range(300):
            with server.client(user="crowd") as client:
                assert client.welcome()
                if number % 10 == 0:
                    client.send(
                        request(f"left {number}", "plain", num_frames=20, engine_options={"pause": 0.05})
                    )
                    client.wait_for(Accepted)
        other.send(request("mine", "plain"))
        assert other.wait_for(Queued).position <= 1
        assert other.ending("mine").num_frames == 5
    with server.client(user="crowd") as client:
        for number in range(0, 300, 10):
            client.cancel(f"left {number}")
        wait_until(lambda: client.welcome().jobs == 0)
