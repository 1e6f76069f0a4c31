"""Broker and store, whatever happens in whatever order; `python build.py bench endurance` tries many more."""

import time
from unittest import mock

from hypothesis import settings

from inference_server.broker.jobs import ON_OFFER
from inference_server.broker.settings import Settings

from .any_order import USERS, AnyOrder

TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=12, stateful_step_count=40, deadline=None)


def test_what_nobody_fetches_goes_after_a_week_whatever_the_clock_on_the_wall_says():
    """It may be set by a year; who starts a server after a holiday has an hour to fetch things."""
    machine, week = AnyOrder(), Settings.keep_ended
    machine.submit(USERS[0], 1)
    machine.work(0, 5)
    machine.cut(USERS[0])

    def kept(seconds_later: float) -> bool:
        desk = machine.broker._desk
        desk.tidy(time.monotonic() + seconds_later)
        machine.turn()
        return bool(desk.jobs) and bool(machine.broker._store.jobs())

    with mock.patch("time.time", return_value=time.time() + 365 * 86400):
        assert kept(week - 60), "it ended just now"
        machine.stop_the_server(back=False)
        assert kept(ON_OFFER - 60), "it is on offer once more"
        assert not kept(ON_OFFER + 60)
    machine.jobs.clear()
    machine.teardown()
