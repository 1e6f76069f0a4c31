"""Work on arrays beside Blender's main thread, which waits much of an export for the scene's evaluation."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

MOST = 4
"""Pieces of work that may wait, with the arrays they need, before the exporter waits for them."""
LOOK = 0.01
"""Seconds between two looks at whether work is done."""


class Background:
    """Does pieces of work one after the other in a thread of its own. None may touch Blender's data.

    Until it is closed nothing collects garbage: what is Blender's would be let go of in that thread, in the
    middle of the scene's evaluation.
    """

    def __init__(self):
        self._collected = False
        self._pool = ThreadPoolExecutor(1, "poseanything-export")
        self._waiting: list[Future] = []
        self._closed = False

    def add(self, work: Iterator[None]) -> Iterator[None]:
        """Have work done that pauses now and then, pausing while too much of it waits; the generator's
        return value is a `Future` of what the work returns."""
        self._waiting = [future for future in self._waiting if not future.done()]
        if len(self._waiting) >= MOST:
            yield from await_result(self._waiting[0])
        self._collected |= gc.isenabled()
        gc.disable()
        future = self._pool.submit(self._run, work)
        self._waiting.append(future)
        return future

    def _run(self, work: Iterator[None]):
        while not self._closed:
            try:
                next(work)
            except StopIteration as finished:
                return finished.value
        return None  # an error's traceback would keep alive what keeps the error

    def close(self) -> None:
        """Leave what is not done yet."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._collected:
            gc.enable()


def await_result(future: Future) -> Iterator[None]:
    """Pause until work is done; the generator's return value is its own, its error is raised."""
    while True:
        try:
            return future.result(timeout=LOOK)
        except TimeoutError:
            if future.done():  # the work's own
                raise
        yield
