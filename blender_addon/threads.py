"""Threads of the extension that stand still while Blender does what it can't do beside them.

An operator of Blender lets go of Python's lock, and takes it to be held as soon as any other thread holds it
(seen up to 5.0, with Python 3.11). Where a context override is in force (`Context.temp_override`), it then
changes Python's objects without the lock. Beside a thread that is at work in Python, a render within an
override ends Blender 4.2 and 4.5 within seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

PATIENCE = 0.5
"""Seconds to wait for a thread that is busy."""

_parkings: list[Callable[[float], AbstractContextManager[bool]]] = []
_standing = False
"""Whether the threads stand still already."""


def add(parked: Callable[[float], AbstractContextManager[bool]]) -> None:
    """Have a thread stand still where it matters: `parked(timeout)` is a context in which it does, if its
    value is true."""
    _parkings.append(parked)


def remove(parked: Callable[[float], AbstractContextManager[bool]]) -> None:
    """The other way round, once the thread has ended. Nothing happens if it was not added."""
    if parked in _parkings:
        _parkings.remove(parked)


@contextmanager
def still() -> Iterator[bool]:
    """A context in which no thread is at work in Python but the caller's, if its value is true. To be entered
    by Blender's main thread, before operators that render or that run in a context override. One within
    another changes nothing."""
    global _standing
    if _standing:
        yield True
        return
    with ExitStack() as stack:
        _standing = all([stack.enter_context(parked(PATIENCE)) for parked in list(_parkings)])
        try:
            yield _standing
        finally:
            _standing = False
