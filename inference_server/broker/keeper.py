"""The store in a thread of its own, so that the broker's loop never waits for a disk."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .store import JobStore, StoreFull, is_scarcity

log = logging.getLogger(__name__)

RETRY = 0.05
"""Seconds after which what needed a file is tried again where too many were open."""

Then = Callable[[Any], None]


def ignore(_: Any) -> None:
    """What is done with a result that nobody needs."""


class Keeper:
    """Does one thing after the other, in the order in which it was told to.

    Args:
        store: nobody else may touch it from now on.
        ring: called in the thread whenever something is done; `hear` then tells what.
    """

    def __init__(self, store: JobStore, ring: Callable[[], None]):
        self.store, self._ring = store, ring
        self._waiting: queue.SimpleQueue[tuple[Callable, tuple, Then] | None] = queue.SimpleQueue()
        self._done: deque[tuple[Then, Any]] = deque()
        self._closing = False
        self._unheard = 0
        self._thread = threading.Thread(target=self._run, name="keeper")
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether something is not done, or not heard of, yet."""
        return self._unheard > 0

    def do(self, work: Callable, *arguments: Any, then: Then = ignore) -> None:
        """Call `work` in the thread. `hear` calls `then` with what it returned, or with what it raised, if
        that is an `OSError`, a `ValueError` or a `StoreFull`, or a fault."""
        self._unheard += 1
        self._waiting.put((work, arguments, then))

    def hear(self) -> None:
        """Tell of what is done by now."""
        while self._done:
            then, result = self._done.popleft()
            self._unheard -= 1
            then(result)

    def finish(self) -> None:
        """Do all that is left to do, tell of it, and close the store."""
        self._closing = True
        self._waiting.put(None)
        self._thread.join()
        self.hear()
        self.store.close()

    def _run(self) -> None:
        while (what := self._waiting.get()) is not None:
            work, arguments, then = what
            self._done.append((then, self._attempt(work, arguments)))
            self._ring()

    def _attempt(self, work: Callable, arguments: tuple) -> Any:
        while True:
            try:
                return work(*arguments)
            except OSError as error:
                if self._closing or not is_scarcity(error):
                    return error
                time.sleep(RETRY)  # too many connections, of which some will end
            except (ValueError, StoreFull) as error:
                return error
            except Exception as error:  # a fault of ours: it must not end the others' jobs
                log.exception("The store has a fault")
                return error
