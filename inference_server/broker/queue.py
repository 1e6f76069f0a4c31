"""Requests that wait: first come, first served within a client, in turns between clients."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, zip_longest
from typing import TYPE_CHECKING

from shared.messages import Cancelled, Failed

if TYPE_CHECKING:
    from .slots import WorkerSlot


class QueueFull(Exception):
    """There is no room for another request. Its text is one sentence for the user."""


@dataclass(eq=False)
class PendingRequest:
    """An accepted request, which the store keeps under `number`.

    `frames` are kept, of which `sent` have gone to the client. `ending` is the last message, once there is
    one, and `told` whether it has gone out. `position` is what the client was last told. `verdict` is how the
    job ends, whatever the worker still says of it, because it was cancelled or can't go on. `slot` is where
    it is made now, `model` what its engine needs loaded for it, and `passed` counts the jobs that went before
    it because what they need was loaded.
    """

    client: bytes
    job: str
    engine: str
    number: int
    frames: int = 0
    sent: int = 0
    ending: Sequence | None = field(default=None, repr=False)
    told: bool = False
    position: int | None = None
    verdict: Cancelled | Failed | None = None
    model: object = None
    slot: WorkerSlot | None = field(default=None, repr=False)
    passed: int = 0


class FairQueue:
    """Clients take turns: next is the one whose last turn is longest ago, or who never had one."""

    def __init__(self, max_jobs: int, max_jobs_per_client: int):
        self.max_jobs, self.max_jobs_per_client = max_jobs, max_jobs_per_client
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

    def require_room(self, client: bytes) -> None:
        """Raises `QueueFull` where no other job of this client may wait."""
        own = len(self._waiting.get(client, ()))
        if own >= self.max_jobs_per_client:
            raise QueueFull(
                f"{own} of your jobs wait already, which is as many as may; cancel one or wait until one is "
                "done."
            )
        if len(self) >= self.max_jobs:
            raise QueueFull(
                f"{len(self)} jobs wait at the server, which is as many as may; try again when one is done."
            )

    def add(self, request: PendingRequest) -> None:
        self._waiting.setdefault(request.client, deque()).append(request)

    def put_back(self, request: PendingRequest) -> None:
        """Have a request that was taken come next."""
        self._waiting.setdefault(request.client, deque()).appendleft(request)
        self._last_turn[request.client] = -1

    def take(self, request: PendingRequest) -> None:
        """Remove a request because its turn has come."""
        self.remove(request)
        self._last_turn[request.client] = next(self._turns)

    def remove(self, request: PendingRequest) -> None:
        waiting = self._waiting[request.client]
        waiting.remove(request)
        if not waiting:
            del self._waiting[request.client]

    def forget(self, client: bytes) -> None:
        """Drop what is kept about a client, unless it has jobs that wait."""
        if client not in self._waiting:
            self._last_turn.pop(client, None)
