from __future__ import annotations

import os
import tempfile
from functools import cache

import pytest
from hypothesis import settings

# Examples share their cores with other work: how long one takes says nothing. They are the same in each run,
# so that nobody is stopped by what their change has not touched; "endurance" looks for more at random.
settings.register_profile("unhurried", deadline=None, derandomize=True)
settings.register_profile("endurance", deadline=None, max_examples=2000)
settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    """What servers keep goes nowhere near the user's own."""
    folder = tempfile.TemporaryDirectory(prefix="poseanything-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ["POSEANYTHING_JOBS"] = os.path.join(folder.name, "jobs")
    os.environ["POSEANYTHING_KEYS"] = os.path.join(folder.name, "keys")


@cache
def _there_is_a_card() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without a card its tests are skipped, each by its name, unless they are rehearsed on the processor."""
    if item.get_closest_marker("gpu") is None or os.environ.get("POSEANYTHING_REHEARSAL"):
        return
    if not _there_is_a_card():
        pytest.skip(f"{item.name} needs a CUDA card; python build.py bench card runs it on one")
