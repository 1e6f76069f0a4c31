"""Whatever an engine does ends one job with a clear sentence, and the next job runs."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import ExitStack

import cv2
import numpy as np
import pytest

from inference_server.broker.process import explain_exit
from inference_server.engines.base import is_out_of_memory
from shared.messages import Accepted, Cancelled, Done, Failed, Frame, Progress

from .client import ServerProcess, request
from .engines import ENGINES


@pytest.mark.parametrize(
    "how, code, sentence",
    [
        ("can't", "invalid", "The prompt is too long for this engine; shorten it."),
        ("lost", "engine", "The card stopped answering; make the clip again."),
        ("raise", "engine", "ValueError: seven is not eight"),
        ("memory", "memory", "choose a smaller size or fewer frames"),
        ("short", "engine", "1 of 5 frames were made"),
        ("order", "engine", "frame 3 came as number 1"),
        ("shape", "engine", "frame 1 is uint8 (8, 8, 3)"),
    ],
)
def test_an_engine_that_breaks(server, how, code, sentence):
    with server.client() as client:
        client.send(request("bad", "broken", engine_options={"how": how}))
        client.send(request("good", "plain"))
        failed = client.ending("bad")
        assert isinstance(failed, Failed) and failed.code == code and sentence in failed.message
        assert [frame.index for frame in client.of(Frame, job="bad")] == [0], "what was made before is kept"
        assert isinstance(client.ending("good"), Done)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    "how, sentence",
    [
        ("segfault", "signal 11: a crash in native code"),
        ("exit", "exit code 3"),
        ("kill", "signal 9: most likely the machine ran out of memory); choose a smaller size"),
    ],
)
def test_an_engine_that_takes_its_process_with_it(server, how, sentence):
    with server.client() as client, server.client() as other:
        client.send(request("bad", "fatal", engine_options={"how": how}))
        other.send(request("good", "plain"))
        failed = client.ending("bad")
        assert failed.code == "worker" and sentence in failed.message
        assert failed.message.values["remedy"].template in failed.message, "it is translated with the rest"
        assert "each of the 2 times" in failed.message and len(client.of(Frame, job="bad")) == 1
        assert isinstance(other.ending("good"), Done)
        client.send(request("again", "plain"))
        assert isinstance(client.ending("again"), Done)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_job_whose_process_is_killed_is_made_once_more(server):
    with server.client() as client:
        client.send(request("who", "plain"))
        process = int(client.ending("who").note)
        client.send(request("victim", "plain", num_frames=30, engine_options={"pause": 0.05}))
        client.send(request("waiting", "plain"))
        client.wait_for(Frame, job="victim")
        os.kill(process, signal.SIGKILL)
        done = client.ending("victim")
        assert done.num_frames == 30 and int(done.note) != process
        frames = [frame.index for frame in client.of(Frame, job="victim")]
        assert frames == list(range(30)), "each frame comes once"
        assert not client.of(Done, job="waiting"), "and it keeps its turn"
        process = int(client.ending("waiting").note)
        os.kill(process, signal.SIGKILL)
        client.send(request("after a death in idleness", "plain"))
        assert isinstance(client.ending("after a death in idleness"), Done)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_process_that_hangs_is_replaced():
    with ServerProcess(ENGINES, hung_timeout=4.0) as server, server.client() as client:
        client.send(request("who", "plain"))
        process = int(client.ending("who").note)
        client.send(request("victim", "plain", num_frames=30, engine_options={"pause": 0.05}))
        client.wait_for(Frame, job="victim")
        os.kill(process, signal.SIGSTOP)
        assert int(client.ending("victim").note) != process
        assert [frame.index for frame in client.of(Frame, job="victim")] == list(range(30))
        client.send(request("next", "plain", num_frames=2, engine_options={"pause": 5}))
        assert isinstance(client.ending("next"), Done), "one that works for longer than that is left alone"
        assert server.log.count("no sign of life; ending it") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="changes another process' limits")
def test_idle_connections_and_a_worker_death_do_not_end_the_server():
    """There are more connections than the server has descriptors for: it hangs up on idle ones, and serves
    those who have something to say, newcomers too."""
    import resource

    with ServerProcess(ENGINES) as server, server.client() as client, ExitStack() as strangers:
        client.send(request("who", "plain"))
        worker = int(client.ending("who").note)
        client.send(request("long", "plain", num_frames=60, engine_options={"pause": 0.02}))
        client.wait_for(Accepted, job="long")
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (128, 128))
        host, port = server.address.removeprefix("tcp://").split(":")
        for _ in range(200):
            strangers.enter_context(socket.create_connection((host, int(port))))
        client.wait_for(Frame, job="long")
        os.kill(worker, signal.SIGKILL)
        client.send(request("next", "plain"))
        assert client.ending("long").num_frames == 60
        assert [frame.index for frame in client.of(Frame, job="long")] == list(range(60))
        for ending in client.of(Failed, job="next") or [client.ending("next")]:
            assert isinstance(ending, Done) or "try again in a few seconds" in ending.message
        with server.client() as late:
            assert late.welcome()
    assert "Traceback" not in server.log


def test_a_spoilt_process_is_replaced_and_a_sound_one_kept(server):
    with server.client() as client:
        notes = []
        for number, how in enumerate(["can't", "raise", "lost"]):
            client.send(request(f"before {number}", "plain"))
            client.send(request(f"bad {number}", "broken", engine_options={"how": how}))
            client.send(request(f"after {number}", "plain"))
            notes.append((client.ending(f"before {number}").note, client.ending(f"after {number}").note))
    assert notes[0][0] == notes[0][1]
    assert notes[1][0] != notes[1][1]
    assert notes[2][0] != notes[2][1]


def test_an_engine_deaf_to_cancel_is_ended_after_the_grace_time(server):
    with server.client() as client:
        client.send(request("deaf", "deaf"))
        client.send(request("next", "plain"))
        client.wait_for(Progress, job="deaf")
        client.cancel("deaf")
        client.cancel("deaf")
        assert isinstance(client.ending("deaf"), Cancelled)
        assert isinstance(client.ending("next"), Done)


def test_the_server_is_heard_while_an_engine_hangs(server):
    with server.client() as client:
        client.send(request("deaf", "deaf"))
        client.wait_for(Progress)
        assert client.welcome().jobs == 1
        client.cancel("deaf")
        client.ending("deaf")


def test_a_server_whose_worker_can_not_start_ends_with_a_sentence():
    with pytest.raises(RuntimeError, match="The engine's process can't start") as error:
        ServerProcess(ENGINES | {"stillborn": "tests.server.engines:Stillborn"})
    assert "exit code 4" in str(error.value)


def test_every_way_in_which_memory_runs_out():
    torch = pytest.importorskip("torch")
    failures = [
        lambda: np.empty(1 << 60, np.uint8),
        lambda: torch.empty(1 << 60),
        lambda: cv2.copyMakeBorder(
            np.zeros((1, 1, 3), np.uint8), 1 << 20, 1 << 20, 1 << 20, 1 << 20, cv2.BORDER_REFLECT
        ),
    ]
    for fail in failures:
        with pytest.raises(Exception) as caught:
            fail()
        assert is_out_of_memory(caught.value), caught.value
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


@pytest.mark.parametrize(
    "code, name, remedy",
    [
        (-9, "signal 9: most likely the machine ran out of memory", "smaller"),
        (-11, "signal 11: a crash in native code", "report"),
        (-64, "signal 64", "report"),
        (3, "exit code 3", "report"),
        (0xC0000005, "exit code 0xc0000005: a crash in native code", "report"),
        (0xC0000017, "exit code 0xc0000017: the machine ran out of memory", "smaller"),
    ],
)
def test_exit_codes_in_words(code, name, remedy):
    assert explain_exit(code)[0] == name
    assert remedy in explain_exit(code)[1]
