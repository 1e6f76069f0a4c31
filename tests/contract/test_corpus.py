"""Damaged messages are read or refused, and cost little: those that are kept, and some fresh ones.

`pytest --hypothesis-profile=endurance` tries many more; `python -m tests.contract.corpus TRIES SEED` keeps
what is new among them."""

from __future__ import annotations

import random

from hypothesis import settings

from .corpus import fault, kept, mutated, refusal
from .strategies import ALL_MESSAGES


def test_what_is_kept_is_read_or_refused():
    messages = kept()
    assert {name.split("-")[0] for name in messages} == {kind.__name__ for kind in ALL_MESSAGES}
    wrong = {name: what for name, data in messages.items() if (what := fault(data))}
    assert not wrong
    refused = {name for name, data in messages.items() if refusal(data)}
    expected = {name for name in messages if "-refused-" in name}
    assert refused == expected | (refused & {name for name in messages if "-fault-" in name})


def test_fresh_mutations_are_read_or_refused():
    messages, refused = list(kept().values()), 0
    for seed in range(10 * settings.default.max_examples):
        chance = random.Random(seed)
        data = _of(chance, messages)
        assert not fault(data), f"seed {seed}; keep it in tests/data/messages: {data!r}"
        refused += refusal(data) is not None
    assert refused > seed // 2, "hardly anything is damaged"


def _of(chance, messages):
    data = chance.choice(messages)
    try:
        return mutated(data, chance)
    except ValueError:  # its stream is not whole: there are no parts to change
        return data[: chance.randrange(len(data) + 1)]
