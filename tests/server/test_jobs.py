"""A job's way through the server when all goes well, and when its client changes its mind."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import zmq

from inference_server.worker.time_left import TimeLeft
from shared.engines import Guidance
from shared.messages import (
    Accepted,
    Cancel,
    Cancelled,
    Done,
    Failed,
    Forgotten,
    Frame,
    Preview,
    Progress,
    Queued,
    Received,
    Resume,
)

from .client import ServerProcess, request
from .engines import ENGINES, colour
from .processes import PATIENCE


def decoded(frame: Frame) -> np.ndarray:
    if frame.format == "raw":
        return np.frombuffer(frame.data, np.uint8).reshape(frame.height, frame.width, 3)
    return cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_the_engines_are_described(server):
    with server.client() as client:
        welcome = client.welcome()
    engines = {engine.name: engine for engine in welcome.engines}
    assert engines["plain"].ready and engines["fussy"].size_multiple == 32
    assert not engines["missing"].ready and "is not installed" in engines["missing"].reason
    assert welcome.server_version and "CPU" in welcome.device


@pytest.mark.parametrize("format, tolerance", [("png", 0), ("raw", 0), ("jpeg", 3)])
def test_frames_come_in_order_as_asked_for(server, format, tolerance):
    with server.client() as client:
        client.send(request("one", "plain", num_frames=40, frame_format=format))
        done = client.ending("one")
    assert isinstance(client.events[0], Accepted)
    frames = client.of(Frame)
    assert isinstance(done, Done) and done.num_frames == 40 and client.events[-1] is done
    assert [frame.index for frame in frames] == list(range(40))
    for frame in frames:
        assert (frame.width, frame.height, frame.format) == (64, 48, format)
        assert np.abs(decoded(frame).astype(int) - colour(frame.index)).max() <= tolerance
    assert [preview.image.shape for preview in client.of(Preview)] == [(6, 8, 3)]


def test_everything_in_the_request_reaches_the_engine(server):
    """The engine gets the request's parts as the client sent them, arrays and all."""
    with server.client() as client:
        maps = np.zeros((9, 6, 8), np.uint8)
        client.send(
            request(
                "all",
                "plain",
                num_frames=9,
                prompt="a fox",
                pose_frames=(0, 4),
                part_maps=maps,
                first_labels=np.zeros((48, 64), np.uint8),
                camera_motion=np.tile(np.eye(3, dtype=np.float32), (9, 1, 1)),
                engine_options={"pause": 0.0},
            )
        )
        assert isinstance(client.ending("all"), Done)


def test_loading_is_reported_once(server):
    with server.client() as client:
        for job in ("first", "second"):
            client.send(request(job, "slow"))
            assert isinstance(client.ending(job), Done)
        first, second = ({p.stage for p in client.of(Progress, job=job)} for job in ("first", "second"))
    assert first == {"loading", "drawing"} and second == {"drawing"}


def test_engines_stay_loaded_when_jobs_alternate(server):
    with server.client() as client:
        client.send(request("warm", "slow"))
        client.ending("warm")
        for job, engine in enumerate(["plain", "slow", "plain", "slow"]):
            client.send(request(str(job), engine))
        notes = {client.ending(str(job)).note for job in range(4)}
        assert not [p for p in client.of(Progress) if p.job != "warm" and p.stage == "loading"]
    assert len(notes) == 1, "all in one process"


def progress(stage, step, total=10, **fields):
    return Progress(job="x", stage=stage, step=step, total=total, **fields)


def test_time_left_is_estimated_from_the_pace_of_the_stage():
    time_left = TimeLeft()
    assert time_left(progress("loading", 0), 0.0) is None
    assert time_left(progress("loading", 5), 50.0) == 50.0
    assert time_left(progress("denoising", 1), 100.0) is None, "loading should have ended by now"
    assert time_left(progress("denoising", 4), 106.0) == 12.0
    assert time_left(progress("denoising", 5, seconds_left=3.0), 108.0) == 3.0, "the engine knows better"
    assert time_left(progress("denoising", 10), 118.0) == 0.0
    assert time_left(progress("loading", 0), 120.0) is None, "the next clip begins anew"


def test_the_time_left_of_a_chained_clip_goes_down_over_all_its_windows():
    now, time_left, told = 0.0, TimeLeft(), []
    for window in range(3):  # 10 s of encoding, 10 steps of 5 s, 16 frames of 1 s
        for stage, done, total, seconds in (
            *(("encoding", step + 1, 5, 2) for step in range(5)),
            *(("denoising", 10 * window + step + 1, 30, 5) for step in range(10)),
            *(("decoding", 16 * window + 4 * (step + 1), 48, 4) for step in range(4)),
        ):
            now += seconds
            told.append((stage, window, now, time_left(progress(stage, done, total), now)))
    assert [left for *_, left in told[:6]] == [None, 6, 4, 2, 0, None], "of the encoding alone"
    second = 5 + 10 + 4 + 5  # the events before its denoising, which tells what comes between windows
    for index, (stage, window, at, left) in enumerate(told[6:-4], 6):
        wanted = now - 16 - at
        if index >= second:
            assert left == pytest.approx(wanted, rel=0.3, abs=25), (stage, window)
        else:
            assert 0 < left <= wanted, (stage, window)
    assert [left for *_, left in told[-4:]] == [None, 8, 4, 0]


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"engine": "nonesuch"}, "There is no engine named 'nonesuch'; choose one of plain"),
        ({"engine": "missing"}, "is not installed"),
        ({"engine": "fussy", "num_frames": 5}, "choose 64 x 64"),
        ({"engine": "fussy", "height": 64, "num_frames": 6}, "choose 5 or 9"),
        ({"engine": "fussy", "height": 64, "num_frames": 83}, "can't make 83 frames; choose 81."),
        ({"engine": "fussy", "height": 64, "num_frames": 85}, "at most 83 frames"),
        ({"engine": "plain", "engine_options": {"speed": 2}}, "Plain has no option 'speed'; it has pause"),
        ({"engine": "plain", "engine_options": {"tiles": 5}}, "Tiles is 5; it must lie between 1 and 4."),
        (
            {"engine": "plain", "guidance": Guidance("strong")},
            "Plain has no guidance 'strong'; choose one of none.",
        ),
    ],
)
def test_what_no_engine_can_serve_is_refused_at_once(server, fields, sentence):
    with server.client() as client:
        client.send(request("no", **fields))
        failed = client.receive()
        assert isinstance(failed, Failed) and failed.job == "no" and sentence in failed.message
        client.send(request("yes", "fussy", width=64, height=64))
        assert isinstance(client.ending("yes"), Done)


def test_a_second_request_waits_its_turn(server):
    with server.client() as client:
        for job in ("1", "2", "3"):
            client.send(request(job, "plain", engine_options={"pause": 0.05}))
        for job in ("1", "2", "3"):
            assert isinstance(client.ending(job), Done)
        positions = [q.position for q in client.of(Queued, job="3")]
        assert positions in ([2, 1], [2, 1, 0]), "0 only while the worker gets ready again"
        started = [client.events.index(client.of(Frame, job=job)[0]) for job in "123"]
        ended = [client.events.index(client.of(Done, job=job)[0]) for job in "123"]
    assert started[0] < ended[0] < started[1] < ended[1] < started[2]


def test_an_id_stands_for_one_request(server):
    with server.client() as client:
        same = request("same", "plain", num_frames=20, engine_options={"pause": 0.05})
        client.send(same)
        client.wait_for(Frame)
        client.send(request("same", "plain"))
        failed = client.wait_for(Failed)
        assert failed.job == "" and "'same'" in failed.message
        client.send(same)
        assert client.ending("same").num_frames == 20
        frames = [frame.index for frame in client.of(Frame)]
        again = frames.index(0, 1)  # it was made once and sent from the start again
        assert frames[:again] == list(range(again)) and frames[again:] == list(range(20))
        client.send(Received(job="same"))
        client.send(request("same", "plain"))
        assert client.ending("same").num_frames == 5


def test_cancel_ends_a_running_job_within_a_step(server):
    """The engine stops at its next look; the process lives on and serves the next job."""
    with server.client() as client:
        client.send(request("warm", "plain"))
        process = client.ending("warm").note
        client.send(request("long", "plain", num_frames=1000, engine_options={"pause": 0.1}))
        client.wait_for(Frame, job="long")
        client.cancel("long")
        assert isinstance(client.ending("long"), Cancelled)
        at = len(client.events)
        assert len(client.of(Frame, job="long")) <= 3
        client.send(request("next", "plain"))
        assert client.ending("next").note == process
        assert not [event for event in client.events[at:] if event.job == "long"], "it was the last word"


def test_cancel_of_a_waiting_job(server):
    with server.client() as client:
        client.send(request("now", "plain", num_frames=10, engine_options={"pause": 0.05}))
        client.send(request("never", "plain"))
        client.wait_for(Queued, job="never")
        client.cancel("never")
        assert isinstance(client.ending(), Cancelled)
        assert isinstance(client.ending("now"), Done)
        assert not client.of(Frame, job="never")


def test_letting_go_of_what_has_ended_or_never_was_is_answered_too(server):
    with server.client() as client:
        for goodbye in (Cancel, Received):
            client.send(request("done", "plain"))
            client.ending("done")
            for job in ("done", "done", "unheard of"):
                client.send(goodbye(job=job))
                client.wait_for(Forgotten, job=job)
            client.send(Resume(job="done", have=0))
            assert client.wait_for(Failed, job="done").code == "unknown"


def test_a_job_can_only_be_cancelled_by_its_client(server):
    with server.client() as owner, server.client() as other:
        owner.send(request("mine", "plain", num_frames=10, engine_options={"pause": 0.05}))
        owner.wait_for(Accepted)
        other.cancel("mine")
        other.welcome()
        assert isinstance(owner.ending("mine"), Done)


def test_three_clients_take_turns(server):
    """The first one asks for four clips before the others ask for two each; nobody waits for all four."""
    with server.client() as a, server.client() as b, server.client() as c:
        a.send(request("hold", "plain", num_frames=1000, engine_options={"pause": 0.05}))
        a.wait_for(Frame)
        for client, count in ((a, 3), (b, 2), (c, 2)):
            for job in range(count):
                client.send(request(str(job), "plain", engine_options={"pause": 0.03}))
                client.wait_for(Queued, job=str(job))
        a.cancel("hold")
        poller = zmq.Poller()
        clients = {client.socket: (name, client) for name, client in zip("abc", (a, b, c))}
        for socket in clients:
            poller.register(socket, zmq.POLLIN)
        order = []
        while len(order) < 7:
            for socket, _ in poller.poll(1000 * PATIENCE) or pytest.fail("nobody is answered"):
                name, client = clients[socket]
                if isinstance(client.receive(), Done):
                    order.append(name + client.events[-1].job)
        assert order == ["b0", "c0", "a0", "b1", "c1", "a1", "a2"]
        positions = [q.position for q in a.of(Queued, job="2")]
    assert positions[0] == 3 and max(positions) == 7, "the others' clips come in between"


def test_a_full_queue_says_so_and_loses_nothing():
    with (
        ServerProcess(ENGINES, max_jobs=3, max_jobs_per_user=2) as server,
        server.client() as a,
        server.client() as b,
    ):
        a.send(request("run", "plain", num_frames=1000, engine_options={"pause": 0.05}))
        a.wait_for(Frame)
        for job in ("1", "2", "3"):
            a.send(request(job, "plain"))
        failed = a.ending("3")
        assert failed.code == "full" and "2 of your jobs" in failed.message
        b.send(request("1", "plain"))
        b.wait_for(Queued)
        b.send(request("2", "plain"))
        failed = b.ending("2")
        assert failed.code == "full" and "3 jobs wait" in failed.message
        a.cancel("run")
        assert isinstance(b.ending("1"), Done)
        assert isinstance(a.ending("2"), Done)
