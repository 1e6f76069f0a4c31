import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def modules_that_stay():
    """What is imported by now is not looked through again whenever a model is let go: half a million
    objects, a quarter of a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def recording(request):
    """A recorded run of the official code; its file is the test's parameter."""
    from tests.model.recordings import Recording

    return Recording(request.param)
