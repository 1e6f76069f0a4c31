"""Broker and store, whatever happens in whatever order; `python build.py bench endurance` tries many more."""

from hypothesis import settings

from .any_order import AnyOrder

TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=12, stateful_step_count=40, deadline=None)
