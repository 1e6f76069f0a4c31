import pytest

from .client import ServerProcess
from .engines import ENGINES


@pytest.fixture(scope="module")
def server():
    """A server with the tests' engines, shared by a module: whatever one test does, the next must work."""
    with ServerProcess(ENGINES, cancel_grace=1.0) as process:
        yield process
        assert process.process.poll() is None, process.log
