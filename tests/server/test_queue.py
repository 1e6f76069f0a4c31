"""The queue's promises, over every order of arrivals and turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_server.broker.queue import FairQueue, PendingRequest, QueueFull


def fill(queue: FairQueue, clients: str) -> list[PendingRequest]:
    jobs = [PendingRequest(client.encode(), str(i), "plain", i) for i, client in enumerate(clients)]
    for job in jobs:
        queue.require_room(job.user)
        queue.add(job)
    return jobs


def drain(queue: FairQueue) -> list[PendingRequest]:
    taken = []
    while job := next(iter(queue), None):
        queue.take(job)
        taken.append(job)
    return taken


def roomy() -> FairQueue:
    return FairQueue(1000, 1000)


@given(st.text("abcd", max_size=40), st.integers(0, 20), st.text("abcd", max_size=20))
def test_announced_order_is_the_order_of_turns(before, turns, after):
    queue = roomy()
    fill(queue, before)
    for _ in range(min(turns, len(queue))):
        queue.take(next(iter(queue)))
    fill(queue, after)
    announced = list(queue)
    assert drain(queue) == announced
    assert len(queue) == 0


@given(st.text("abcd", max_size=40))
def test_nobody_gets_two_turns_while_another_waits_for_one(clients):
    queue = roomy()
    jobs = fill(queue, clients)
    taken = drain(queue)
    assert sorted(map(id, taken)) == sorted(map(id, jobs))
    for client in set(clients):
        own = [job for job in jobs if job.user == client.encode()]
        places = [taken.index(job) for job in own]
        assert places == sorted(places), "first come, first served within a client"
        for earlier, later in zip(places, places[1:]):
            between = [job.user for job in taken[earlier + 1 : later]]
            assert len(between) == len(set(between)), "each other client has at most one turn between two"
            still_waiting = {job.user for job in taken[later:]} - {client.encode()}
            assert still_waiting <= set(between), "and everyone who waits has one"


def test_a_newcomer_goes_before_those_who_had_a_turn():
    queue = roomy()
    fill(queue, "aaa")
    queue.take(next(iter(queue)))
    fill(queue, "b")
    assert [job.user for job in queue] == [b"b", b"a", b"a"]


@given(st.text("abc", min_size=1, max_size=30), st.data())
def test_removing_a_job_keeps_the_order_of_the_rest(clients, data):
    queue = roomy()
    gone = data.draw(st.sampled_from(fill(queue, clients)))
    others = [job for job in queue if job.user != gone.user]
    queue.remove(gone)
    assert gone not in list(queue)
    assert [job for job in queue if job.user != gone.user] == others


@pytest.mark.parametrize(
    "limits, clients, refused", [((3, 10), "abc", "3 jobs wait"), ((10, 2), "aa", "2 of your jobs")]
)
def test_it_is_bounded_and_says_how(limits, clients, refused):
    queue = FairQueue(*limits)
    fill(queue, clients)
    before = list(queue)
    with pytest.raises(QueueFull, match=refused):
        fill(queue, "a")
    assert list(queue) == before
    queue.take(next(iter(queue)))
    fill(queue, "a")


@given(st.text("abcd", min_size=1, max_size=40), st.integers(0, 20))
def test_a_job_put_back_comes_next(clients, turns):
    queue = roomy()
    fill(queue, clients)
    for _ in range(min(turns, len(queue) - 1)):
        queue.take(next(iter(queue)))
    job = next(iter(queue))
    queue.take(job)
    queue.put_back(job)
    assert next(iter(queue)) is job
    assert len(drain(queue)) == len(clients) - min(turns, len(clients) - 1)
