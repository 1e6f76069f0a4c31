"""Live sessions: the latest pose wins, nobody waits for a clip, and what is not needed is freed."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from shared.messages import Accepted, Done, LiveClose, LiveEnded, LiveOpen, LivePicture, LivePose, LiveReady
from shared.pose import Limb, Polyline, PoseSequence

from .client import PATIENCE, Client, ServerProcess, request
from .engines import ENGINES


@pytest.fixture(scope="module")
def server():
    with ServerProcess(ENGINES, client_timeout=2.0) as process:
        yield process
        assert process.process.poll() is None, process.log


def open_live(client: Client, session: str, engine: str = "living", **fields) -> LiveReady | LiveEnded:
    client.send(LiveOpen(session, request("-", engine, frame_format="raw", **fields)))
    return client.wait_for(LiveReady, LiveEnded)


def pose(session: str, number: int, x: float, **fields) -> LivePose:
    line = Polyline(0, np.array([[x, 5, 1], [x, 9, 1]], np.float32))
    limbs = [Limb("thigh", 0), Limb("shin", 0)]
    return LivePose(session, number, PoseSequence.from_frames(64, 48, ["leg"], limbs, [[line]]), **fields)


def answer(client: Client, *sent: LivePose) -> int:
    """The colour of the picture that answers the last of some poses."""
    for message in sent:
        client.send(message)
    while (picture := client.wait_for(LivePicture, LiveEnded)).number != sent[-1].number:
        pass
    assert (picture.session, picture.width, picture.height) == (sent[-1].session, 64, 48)
    [colour] = set(bytes(picture.data))
    return colour


def test_the_latest_pose_wins_and_stale_ones_are_never_drawn(server):
    with server.client() as client:
        assert open_live(client, "a", engine_options={"pause": 0.05}).note == "In colour."
        shift = np.array([[1, 0, 4], [0, 1, 0], [0, 0, 1]], np.float32)
        assert answer(client, pose("a", 0, 20, camera_motion=shift)) == 24
        assert answer(client, *(pose("a", number, 20 + number) for number in range(1, 40))) == 59
        numbers = [picture.number for picture in client.of(LivePicture)]
        assert numbers == sorted(set(numbers)) and len(numbers) < 10, "most came too late"


def test_sessions_do_not_wait_for_a_clip_nor_for_each_other(server):
    with server.client() as client, server.client() as other:
        client.send(request("clip", "plain", num_frames=400, engine_options={"pause": 0.02}))
        client.wait_for(Accepted)
        for number, one in enumerate((client, other)):
            open_live(one, "same name")
            open_live(one, "second")
            assert answer(one, pose("same name", 0, 30 + number)) == 30 + number
            assert answer(one, pose("second", 0, 40 + number)) == 40 + number
        assert answer(client, pose("same name", 1, 50)) == 50
        assert not client.of(Done)
        client.cancel("clip")


def wait_for_open(trace, count: int, *alive: Client) -> None:
    deadline = time.monotonic() + PATIENCE
    while os.path.getsize(trace) != count:
        assert time.monotonic() < deadline
        for client in alive:
            client.welcome()
        time.sleep(0.05)


def test_sessions_are_freed_when_they_are_closed_and_when_their_client_is_gone(server, tmp_path):
    trace = tmp_path / "open"
    options = {"trace": str(trace)}
    with server.client() as alive:
        open_live(alive, "mine", engine_options=options)
        with server.client() as dying:
            open_live(dying, "first", engine_options=options)
            open_live(dying, "second", engine_options=options)
            open_live(dying, "first", engine_options=options)
            wait_for_open(trace, 3, alive, dying)
            dying.send(LiveClose("second"))
            wait_for_open(trace, 2, alive, dying)
        wait_for_open(trace, 1, alive)
        assert answer(alive, pose("mine", 0, 7)) == 7


def test_what_can_t_be_opened_or_drawn_is_said_and_the_others_go_on(server):
    with server.client() as client:
        assert "no live pictures" in open_live(client, "a", "plain").message
        assert open_live(client, "a", "nobody").code == "invalid"
        assert "Nothing moves" in open_live(client, "a", engine_options={"how": "can't"}).message
        client.send(pose("never opened", 0, 1))
        ended = client.wait_for(LiveEnded)
        assert (ended.session, ended.code) == ("never opened", "unknown")
        open_live(client, "good")
        open_live(client, "bad")
        client.send(pose("bad", 0, 13))
        ended = client.wait_for(LiveEnded)
        assert ended.session == "bad" and "thirteen" in ended.message
        assert answer(client, pose("good", 0, 3)) == 3
        for number in range(7):
            open_live(client, str(number))
        assert open_live(client, "one too many").code == "full"


def test_a_process_that_dies_ends_its_sessions_with_a_sentence_and_another_is_begun(server):
    with server.client() as client:
        open_live(client, "a")
        client.send(pose("a", 0, 14))
        ended = client.wait_for(LiveEnded)
        assert ended.code == "worker" and "memory" in ended.message
        assert isinstance(open_live(client, "a"), LiveReady)
        assert answer(client, pose("a", 1, 9)) == 9
