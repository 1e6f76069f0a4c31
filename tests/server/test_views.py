"""The commands that look at a server, as somebody uses them."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest

from inference_server.broker.keys import KeyRing
from inference_server.cli import main
from inference_server.cli.tables import as_table
from shared.keys import keys_folder
from shared.messages import Cancelled, Done, Frame, Progress, Queued, Received
from shared.request_file import write_request

from .client import ServerProcess, request
from .engines import ENGINES, colour


@pytest.fixture(scope="module")
def server():
    with ServerProcess(ENGINES, workers=2) as process:
        yield process
        assert process.process.poll() is None, process.log


@pytest.fixture
def client(server):
    """Somebody with two jobs that run, and one that waits; all are gone afterwards."""
    with server.client() as one:
        for name in ("a", "b"):
            one.send(request(name, "plain", num_frames=1000, engine_options={"pause": 0.05}))
        for name in ("a", "b"):
            one.wait_for(Frame, job=name)
            one.wait_for(Progress, job=name)
        one.send(request("c", "plain", prompt="A fox\nruns.\x1b[2J"))
        one.wait_for(Queued, job="c")
        yield one
        for name in ("c", "a", "b"):
            one.cancel(name)
        while one.welcome().jobs:
            pass


@pytest.fixture
def command(server, capsys):
    def run(*words: str, code: int = 0) -> str:
        assert main([words[0], "--server", server.address, *words[1:]]) == code
        said = capsys.readouterr()
        assert (said.err.count("\n") == 1) == bool(code), said.err
        return said.err if code else said.out

    return run


def test_status_says_who_does_what_where(client, command):
    status = json.loads(command("status", "--json"))
    assert [job["state"] for job in status["jobs"]] == ["running", "running", "waiting"]
    assert {worker["name"] for worker in status["workers"]} == {"worker 0", "worker 1"}
    for worker in status["workers"]:
        assert worker["state"] == "running" and worker["stage"] == "drawing" and worker["total"] == 1000
        assert worker["memory"] > 10 << 20
    assert max(user["jobs"] for user in status["users"]) == 3 and 0 < status["kept"] < status["quota"]
    shown = command("status")
    assert re.search(r"^worker 1 +running .* drawing \d+/1000 +\d+ MiB", shown, re.MULTILINE)
    assert "Jobs: 2 running, 1 waiting" in shown


def test_who_runs_the_server_sees_all_and_another_only_how_much_there_is(client, server, command):
    jobs = [json.loads(line) for line in command("jobs", "--json").splitlines()]
    assert [job["job"] for job in jobs] == ["a", "b", "c"] and jobs[2]["prompt"] == "A fox runs. [2J"
    assert [job["position"] for job in jobs] == [0, 0, 1] and jobs[2]["num_frames"] == 5
    assert "c    " in command("jobs") and "waiting, 1 before" in command("jobs")

    guest = str(KeyRing(keys_folder()).invite("guest", server.address))
    jobs = [json.loads(line) for line in command("jobs", "--json", "--server", guest).splitlines()]
    assert [job["state"] for job in jobs] == ["running", "running", "waiting"]
    assert not any(job["job"] or job["prompt"] for job in jobs)
    for words in (["cancel", "a"], ["fetch", "a", "--output", "nowhere"]):
        assert "You have no job 'a' there" in command(*words, "--server", guest, code=1)


def test_a_job_is_cancelled_by_its_name(client, command):
    assert command("cancel", "c", "a") == "c: cancelled\na: cancelled\n"
    assert isinstance(client.ending("a"), Cancelled) and client.of(Cancelled, job="c")
    assert "You have no job 'a' there" in command("cancel", "a", code=1)


def test_frames_are_fetched_while_the_rest_is_made_and_nobody_misses_one(server, command, tmp_path):
    with server.client() as client:
        client.send(request("mine", "plain", num_frames=30, engine_options={"pause": 0.03}))
        client.wait_for(Frame)
        said = command("fetch", "mine", "--output", str(tmp_path / "so far"))
        assert re.search(r"so far: \d+ of 30 frames, running", said)
        assert "so far" in command("fetch", "mine", "--output", str(tmp_path / "so far"), code=1)
        said = command("fetch", "mine", "--wait", "--output", str(tmp_path / "all"))
        assert "all: 30 frames, done" in said
        assert isinstance(client.ending("mine"), Done)
        assert [frame.index for frame in client.of(Frame)] == list(range(30))
        command("fetch", "mine", "--output", str(tmp_path / "all.mp4"))
        assert "mine has ended (done)" in command("cancel", "mine", code=1)
        client.send(Received(job="mine"))
    for index, name in enumerate(sorted((tmp_path / "all").iterdir())):
        assert np.all(cv2.imread(str(name))[..., ::-1] == colour(index)), name
    assert cv2.VideoCapture(str(tmp_path / "all.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 30


def test_nobody_there_is_one_sentence(command, monkeypatch, capsys):
    monkeypatch.setattr("inference_server.cli.remote.PATIENCE", 0.2)
    assert main(["jobs", "--server", "tcp://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("No server that lets you in answers at tcp://127.0.0.1:1; ")
    assert main(["jobs", "--server", "over there"]) == 1
    assert "is not an address" in capsys.readouterr().err


def test_a_table_fits_its_terminal_and_holds_no_control_characters():
    table = as_table(["JOB", "ABOUT"], [["a", "x" * 50], ["bcde", "evil\x1b[2J\nline"]], width=20)
    assert table.splitlines() == ["JOB   ABOUT", "a     " + "x" * 13 + "…", "bcde  evil [2J line"]


def test_generate_has_a_server_make_several_samples(server, command, tmp_path):
    write_request(tmp_path / "fox.poserequest", request("x", "plain", engine_options={"pause": 0.05}, seed=7))
    words = ["--request", str(tmp_path / "fox.poserequest"), "--output", str(tmp_path / "clip")]
    command("generate", *words, "--samples", "2")
    for seed in (7, 8):
        names = sorted((tmp_path / f"clip-{seed}").iterdir())
        assert len(names) == 5
        for index, name in enumerate(names):
            assert np.all(cv2.imread(str(name))[..., ::-1] == colour(index))
    words[1] = str(tmp_path / "nothing")
    assert "nothing" in command("generate", *words, code=1)
    with server.client() as client:
        assert client.welcome().jobs == 0
