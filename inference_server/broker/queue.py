"""Requests that wait: first come, first served within a client, in turns between clients."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, zip_longest

from shared.messages import Cancelled, Failed


class QueueFull(Exception):
    """There is no room for another request. Its text is one sentence for the user."""


@dataclass(eq=False)
class PendingRequest:
    """A valid request as it came, until its job has ended.

    `parts` go to the worker untouched. `position` is what its client was last told. `verdict` is how the job
    ends, whatever the worker still says of it, because it was cancelled or its client is lost.
    """

    client: bytes
    job: str
    engine: str
    parts: Sequence
    size: int
    position: int | None = None
    verdict: Cancelled | Failed | None = None


class FairQueue:
    """Clients take turns: next is the one whose last turn is longest ago, or who never had one."""

    def __init__(self, max_jobs: int, max_jobs_per_client: int, max_bytes: int):
        self.max_jobs, self.max_jobs_per_client, self.max_bytes = max_jobs, max_jobs_per_client, max_bytes
        self.size = 0
        self._waiting: dict[bytes, deque[PendingRequest]] = {}
        self._last_turn: dict[bytes, int] = {}
        self._turns = count(1)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[PendingRequest]:
        """The requests in the order in which they would run if no more came."""
        clients = sorted(self._waiting, key=lambda client: self._last_turn.get(client, 0))
        for turn in zip_longest(*(self._waiting[client] for client in clients)):
            yield from filter(None, turn)

    def add(self, request: PendingRequest) -> None:
        """Raises `QueueFull`."""
        if len(self._waiting.get(request.client, ())) >= self.max_jobs_per_client:
            raise QueueFull(
                f"{self.max_jobs_per_client} of your jobs wait already; cancel one or wait until one is done."
            )
        if len(self) >= self.max_jobs or self.size + request.size > self.max_bytes:
            raise QueueFull("The server's queue is full; try again when a job is done.")
        self._waiting.setdefault(request.client, deque()).append(request)
        self.size += request.size

    def first(self) -> PendingRequest | None:
        return next(iter(self), None)

    def take(self, request: PendingRequest) -> None:
        """Remove a request because its turn has come."""
        self.remove(request)
        self._last_turn[request.client] = next(self._turns)

    def remove(self, request: PendingRequest) -> None:
        waiting = self._waiting[request.client]
        waiting.remove(request)
        if not waiting:
            del self._waiting[request.client]
        self.size -= request.size

    def forget(self, client: bytes) -> None:
        """Drop what is kept about a client without waiting requests."""
        self._last_turn.pop(client, None)
