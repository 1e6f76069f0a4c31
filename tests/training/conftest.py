"""What the tests of training share."""

import pytest


@pytest.fixture
def fresh_accelerate():
    """accelerate takes the precision of a process's first trainer for that of all."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
