import pytest

from .client import ServerProcess
from .engines import ENGINES


@pytest.fixture(scope="module")
def server():
    """A server with the engines of `tests.server.engines`, shared by a module's tests; whatever one does, the next must work."""
    with ServerProcess(ENGINES, cancel_grace=1.0) as process:
        yield process
        assert process.process.poll() is None, process.log
