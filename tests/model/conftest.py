import pytest


@pytest.fixture
def recording(request):
    """A recorded run of the official code; its file is the test's parameter."""
    from tests.model.recordings import Recording

    return Recording(request.param)
