"""The client, whatever happens in whatever order; `pytest --hypothesis-profile=endurance` tries many more."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from .any_order import AnyOrder

pytestmark = pytest.mark.any_blender


def test_nothing_is_lost_in_any_order(addon):
    tries = settings.default.max_examples // 5
    run_state_machine_as_test(AnyOrder, settings=settings(max_examples=tries, stateful_step_count=40))
