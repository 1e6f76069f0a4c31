"""Several workers under one broker: what goes where, and that none minds what becomes of another."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from inference_server.broker import ServerError, slots
from inference_server.broker.queue import FairQueue, PendingRequest
from inference_server.broker.settings import Settings
from inference_server.broker.slots import MAX_PASSED, Crew, WorkerSlot, choose
from shared.engines import EngineDescription
from shared.messages import Cancelled, Done, Frame, Progress, Status, StatusRequest

from .client import ServerProcess, request
from .engines import ENGINES

MODELS = "pqr"


def slot(name: str = "", neural: bool = True, ready: bool = True) -> WorkerSlot:
    engine = EngineDescription(name="net", label="Net", summary="", neural=neural, ready=ready)
    return WorkerSlot(name, process=SimpleNamespace(idle=True, reported=True), engines={"net": engine})


def waiting(models: str) -> FairQueue:
    queue = FairQueue(1000, 1000)
    for number, model in enumerate(models):
        pending = PendingRequest(b"one", str(number), "net", number)
        pending.model = model
        queue.add(pending)
    return queue


def begin(queue: FairQueue, crew: list[WorkerSlot]) -> tuple[str, str] | None:
    if (chosen := choose(queue, crew)) is None:
        return None
    pending, where = chosen
    queue.take(pending)
    where.begin(pending)
    return pending.job, where.name


def finish(where: WorkerSlot) -> None:
    where.end()
    where.process.idle = True


def test_a_job_goes_where_its_model_is_loaded():
    a, b = crew = [slot("a"), slot("b")]
    queue = waiting("pqqp")
    assert begin(queue, crew) == ("0", "a") and begin(queue, crew) == ("1", "b")
    assert begin(queue, crew) is None, "both are at work"
    finish(a)
    assert begin(queue, crew) == ("3", "a"), "the one before it has its model in b"
    finish(b)
    assert begin(queue, crew) == ("2", "b")


def test_without_a_job_that_suits_it_a_slot_is_not_left_idle():
    a, b = crew = [slot("a"), slot("b")]
    queue = waiting("pp")
    assert begin(queue, crew) == ("0", "a") and begin(queue, crew) == ("1", "b")


def test_a_job_that_comes_between_two_others_waits_for_the_slot_that_has_its_model():
    a, b = crew = [slot("a"), slot("b")]
    queue = waiting("pqq")
    assert begin(queue, crew) == ("0", "a") and begin(queue, crew) == ("1", "b")
    finish(a)
    b.end()  # and has not said yet that it is idle
    assert begin(queue, crew) is None
    b.process.idle = True
    assert begin(queue, crew) == ("2", "b")


@given(st.text("pq", min_size=1, max_size=30), st.data())
def test_a_job_is_passed_so_often_at_most_and_none_is_forgotten(models, data):
    crew = [slot("a"), slot("b")]
    queue, order = waiting(models), []
    while len(queue) or any(one.running for one in crew):
        while (begun := begin(queue, crew)) is not None:
            order.append(int(begun[0]))
        assert not (len(queue) and any(one.idle for one in crew)), "nobody idles while jobs wait"
        finish(data.draw(st.sampled_from([one for one in crew if one.running])))
    assert sorted(order) == list(range(len(models)))
    for place, job in enumerate(order):
        assert sum(later > job for later in order[:place]) <= MAX_PASSED


def test_a_job_waits_for_a_slot_whose_engine_can_make_it():
    able, unable = slot("able"), slot("unable", ready=False)
    queue = waiting("p")
    assert choose(queue, [unable, able])[1] is able
    able.process.idle = False
    assert choose(queue, [unable, able]) is None
    assert choose(queue, [unable])[1] is unable, "where none ever can, its engine says why"


def test_each_card_has_a_process_that_sees_no_other():
    crew = Crew(None, Settings(cards=("0", "3")), "", print)
    assert [one.name for one in crew.slots] == ["card 0", "card 3"]
    assert [one.environment["CUDA_VISIBLE_DEVICES"] for one in crew.slots] == ["0", "3"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        RuntimeError("can't start new thread"),
        zmq.ZMQError(errno.EMFILE),
        MemoryError(),
    ],
    ids=lambda error: str(error) or type(error).__name__,
)
def test_a_start_that_fails_is_tried_again_with_growing_pauses(error, monkeypatch):
    tries = []

    def start(*_, **__):
        tries.append(now)
        raise error

    monkeypatch.setattr(slots, "WorkerProcess", start)
    crew, now = Crew(None, Settings(), "", print), 0.0
    for now in [step / 4 for step in range(800)]:
        crew.keep(now)
    pauses = [later - earlier for earlier, later in zip(tries, tries[1:])]
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]


def died(crew: Crew, exit_code: int) -> None:
    process = SimpleNamespace(exit_code=exit_code, killed_for="", reported=False, close=lambda: None)
    crew.slots[0].process = process
    crew.bury(crew.slots[0], 0.0)


def test_kills_at_the_start_are_outlived_and_a_fault_of_the_program_is_not():
    crew = Crew(None, Settings(), "", print)
    for _ in range(10):
        died(crew, -signal.SIGKILL)
    crew = Crew(None, Settings(), "", print)
    for _ in range(2):
        died(crew, 1)
    with pytest.raises(ServerError, match="can't start .exit code 1"):
        died(crew, 1)


@pytest.fixture(scope="module")
def server():
    """With two cards; what has no use for them does not notice that they are made up."""
    with ServerProcess(ENGINES, cards=["0", "1"], cancel_grace=10.0) as process:
        yield process
        assert process.process.poll() is None, process.log


def submit(client, *names: str, num_frames: int = 1000) -> None:
    for name in names:
        client.send(request(name, "plain", num_frames=num_frames, engine_options={"pause": 0.05}))


def test_two_workers_make_two_jobs_at_once_and_each_is_cancelled_within_a_step(server):
    with server.client() as client:
        submit(client, "a", "b")
        for name in ("a", "b"):
            client.wait_for(Frame, job=name)
        client.send(request("c", "plain"))
        client.cancel("b")
        assert isinstance(client.ending("b"), Cancelled)
        drawn = max(progress.step for progress in client.of(Progress, job="b"))
        assert drawn - len(client.of(Frame, job="b")) <= 4, "what is on its way is all that is dropped"
        assert isinstance(client.ending("c"), Done), "b's worker takes the next job"
        before = len(client.of(Frame, job="a"))
        while len(client.of(Frame, job="a")) < before + 3:
            client.receive()
        client.cancel("a")
        assert isinstance(client.ending("a"), Cancelled)


def homes(client) -> dict[str, str]:
    """Have two models loaded by two workers, and see where each goes from then on: gives the process in
    which both clips of a model were made."""
    for model in "pq":
        options = {"model": model, "pause": 0.05}
        client.send(request(model, "slow", num_frames=1000, engine_options=options))
    for model in "pq":
        client.wait_for(Frame, job=model)
    for model in "pq":
        client.cancel(model)
        assert isinstance(client.ending(model), Cancelled)
    found: dict[str, set[str]] = {"p": set(), "q": set()}
    for number, model in enumerate("qpqpp"):
        client.send(request(f"{model} {number}", "slow", engine_options={"model": model}))
        found[model].add(client.ending(f"{model} {number}").note)
    assert all(len(processes) == 1 for processes in found.values()), found
    return {model: process for model, (process,) in found.items()}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_each_card_keeps_the_model_that_it_has_loaded(server):
    with server.client() as client:
        processes = homes(client).values()
    words = [Path(f"/proc/{process}/environ").read_text().split("\0") for process in processes]
    cards = {word for process in words for word in process if word.startswith("CUDA_VISIBLE_DEVICES=")}
    assert cards == {"CUDA_VISIBLE_DEVICES=0", "CUDA_VISIBLE_DEVICES=1"}


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_several_seeds_of_one_shot_are_made_side_by_side(server):
    """Also where the model is loaded in one place alone."""
    with server.client() as client:
        client.send(request("loads it", "slow"))
        client.ending("loads it")
        for seed in (1, 2):
            options = {"engine_options": {"pause": 0.05}, "num_frames": 1000}
            client.send(request(f"seed {seed}", "slow", seed=seed, **options))
        for seed in (1, 2):
            client.wait_for(Frame, job=f"seed {seed}")
        client.send(StatusRequest())
        assert {each.job for each in client.wait_for(Status).workers} == {"seed 1", "seed 2"}
        for seed in (1, 2):
            client.cancel(f"seed {seed}")
            assert isinstance(client.ending(f"seed {seed}"), Cancelled)


def test_one_workers_death_leaves_the_others_at_work(server):
    with server.client() as client:
        client.send(request("who", "plain"))
        victim = int(client.ending("who").note)
        submit(client, "a", "b", num_frames=40)
        for name in ("a", "b"):
            client.wait_for(Frame, job=name)
        os.kill(victim, signal.SIGKILL)
        while len(client.of(Done)) < 3:
            client.receive()
        notes = {done.job: done.note for done in client.of(Done)[1:]}
        for name in ("a", "b"):
            assert [frame.index for frame in client.of(Frame, job=name)] == list(range(40))
        assert str(victim) not in notes.values(), "the other's worker, or a new one, has made it"
