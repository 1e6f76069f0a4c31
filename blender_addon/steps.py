"""Work that pauses now and then, as generators, so that others may go on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator


def at_once(steps: Iterator):
    """All of a generator's work without its pauses: what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value


def mapped(change: Callable, steps: Iterator) -> Generator:
    """A generator's work with each thing it yields changed; what it returns is handed on."""
    while True:
        try:
            step = next(steps)
        except StopIteration as finished:
            return finished.value
        yield change(step)
