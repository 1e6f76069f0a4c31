"""Clients that are slow, vanish, come back, or claim to be another."""

from __future__ import annotations

import os
import time

import pytest

from shared.messages import Accepted, Done, Failed, Frame, Hello, Queued

from .client import PATIENCE, Client, ServerProcess, request
from .engines import ENGINES

FAR_TOO_MANY = {"num_frames": 300, "width": 512, "height": 512, "frame_format": "raw"}
"""A clip of 236 MB: no socket's buffers hold a tenth of it."""


@pytest.fixture(scope="module")
def server():
    """A server that is quick to give clients up."""
    with ServerProcess(ENGINES, client_timeout=3.0, stall_timeout=1.0, cancel_grace=1.0) as process:
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


def still(path) -> bool:
    """Whether a file has stopped growing."""
    size = os.path.getsize(path)
    time.sleep(0.5)
    return size > 0 and os.path.getsize(path) == size


def test_an_engine_waits_for_a_client_that_takes_no_frames(server, tmp_path):
    trace = tmp_path / "trace"
    with server.client(receive_limit=1) as slow, server.client() as other:
        slow.send(request("big", "plain", engine_options={"trace": str(trace)}, **FAR_TOO_MANY))
        wait_until(lambda: trace.exists() and still(trace))
        assert os.path.getsize(trace) < 100, "it does not run ahead"
        assert other.welcome().jobs == 1, "and others are heard meanwhile"
        while not slow.of(Done):
            slow.receive()
            speak(slow)
        frames = slow.of(Frame)
    assert [frame.index for frame in frames] == list(range(300)), "nothing is lost by waiting"


def test_a_client_that_takes_no_frames_gives_way_to_others(server, tmp_path):
    trace = tmp_path / "trace"
    with server.client(receive_limit=1) as stopped, server.client() as other:
        stopped.send(request("big", "plain", engine_options={"trace": str(trace)}, **FAR_TOO_MANY))
        wait_until(lambda: trace.exists() and still(trace))
        other.send(request("small", "plain"))
        while not other.of(Done):
            speak(stopped, other)
            other.receive()
        failed = stopped.ending("big")
        assert failed.code == "full" and "took no more frames" in failed.message
        frames = [frame.index for frame in stopped.of(Frame)]
        assert frames == list(range(len(frames))), "what did arrive is whole"
        stopped.send(request("small", "plain"))
        assert isinstance(stopped.ending("small"), Done)


def test_a_client_that_vanishes_leaves_no_work_behind(server):
    with server.client() as witness:
        with server.client() as gone:
            for job in ("running", "waiting", "waiting too"):
                gone.send(request(job, "plain", num_frames=1000, engine_options={"pause": 0.05}))
            gone.wait_for(Queued, job="waiting too")
        witness.send(request("next", "plain"))
        while not witness.of(Done):
            speak(witness)
            witness.receive()
        wait_until(lambda: witness.welcome().jobs == 0)


def test_a_client_that_comes_back_in_time_goes_on(server):
    with server.client(identity=b"blender 1") as before:
        before.send(request("job", "plain", num_frames=20, engine_options={"pause": 0.1}))
        before.wait_for(Frame)
    with server.client(identity=b"blender 1") as after:
        speak(after)
        assert after.ending("job").num_frames == 20
        frames = [frame.index for frame in after.of(Frame)]
    assert frames == list(range(frames[0], 20))


def test_a_client_that_comes_back_late_learns_how_its_jobs_ended(server):
    with server.client(identity=b"blender 2") as before:
        before.send(request("job", "plain", num_frames=1000, engine_options={"pause": 0.05}))
        before.send(request("waiting", "plain"))
        before.wait_for(Queued)
    with server.client() as witness:
        wait_until(lambda: witness.welcome().jobs == 0)
    with server.client(identity=b"blender 2") as after:
        speak(after)
        failed = {after.ending().job, after.ending().job}
        assert failed == {"job", "waiting"}
        assert all("generate this clip again" in f.message for f in after.of(Failed))
        assert not after.of(Frame)


def test_a_silent_client_keeps_its_job_by_saying_hello(server):
    with server.client() as client:
        client.send(request("long", "plain", num_frames=40, engine_options={"pause": 0.1}))
        while not client.of(Done, Failed):
            speak(client)
            client.receive()
        assert client.of(Done)


def test_two_clients_of_one_identity_harm_nobody_else(server):
    """The one that connected last is the one that is answered; the server does not mind."""
    with server.client() as other:
        other.send(request("other", "plain", num_frames=30, engine_options={"pause": 0.05}))
        with server.client(identity=b"twin") as first:
            first.send(request("of the first", "plain"))
            first.wait_for(Accepted)
            with server.client(identity=b"twin") as second:
                for _ in range(5):
                    speak(first, second)
                    time.sleep(0.05)
        assert other.ending("other").num_frames == 30
        with server.client(identity=b"twin") as third:
            third.send(request("of the third", "plain"))
            assert isinstance(third.ending("of the third"), Done)


def test_many_clients_that_come_and_go(server):
    """Each is answered, what some of them leave behind ends, and the server works on."""
    for number in range(300):
        with server.client(identity=f"passer-by {number}".encode()) as client:
            assert client.welcome().jobs <= 30
            if number % 10 == 0:
                client.send(request("left", "plain", num_frames=1000, engine_options={"pause": 0.05}))
                client.wait_for(Accepted)
    with server.client() as client:
        wait_until(lambda: client.welcome().jobs == 0)
        client.send(request("mine", "plain"))
        assert client.ending("mine").num_frames == 5
