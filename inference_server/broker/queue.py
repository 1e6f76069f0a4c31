"""Requests that wait: first come, first served within a user, in turns between users."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, zip_longest
from typing import TYPE_CHECKING, Any

from shared.messages import Cancelled, Failed
from shared.sentences import SentenceError

from .frontend import Client

if TYPE_CHECKING:
    from .slots import WorkerSlot


POSES = "poses"
"""What stands for the engine of those that ask for poses in videos."""


class QueueFull(SentenceError):
    """There is no room for another request. Its text is one sentence for the user."""


@dataclass(eq=False)
class PendingRequest:
    """An accepted request, which the store keeps under `number`.

    `user` is the key of who asked, and `taker` the connection of theirs that takes the frames now, if any.
    `frames` are kept, of which `sent` have gone to the client; no more are read for it before
    `unreadable_until`, where that failed;
    `made` counts also those that are just being kept. `over` is the last message, once there is one, and
    `ending` the same as soon as it is kept, at `ended` (`time.monotonic`). `told` says whether the
    ending has gone out. `position` is what the client was last told. `verdict` is how the job ends, whatever
    the worker still says of it, because it was cancelled or can't go on; `askers` want to be told that it was
    cancelled. `slot` is where it is made now, `deaths` counts the workers that ended there, `model` is what
    its engine needs loaded for it, and `passed` counts the jobs that went before it because what they need
    was loaded. `digest` and `about` are what the store remembers of its request.
    """

    user: bytes
    job: str
    engine: str
    number: int
    digest: bytes = field(default=b"", repr=False)
    taker: Client | None = None
    frames: int = 0
    made: int = 0
    sent: int = 0
    unreadable_until: float = 0.0
    over: Sequence | None = field(default=None, repr=False)
    ending: Sequence | None = field(default=None, repr=False)
    ended: float = 0.0
    told: bool = False
    position: int | None = None
    verdict: Cancelled | Failed | None = None
    askers: set[Client] = field(default_factory=set, repr=False)
    model: object = None
    slot: WorkerSlot | None = field(default=None, repr=False)
    deaths: int = 0
    passed: int = 0
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)


class FairQueue:
    """Users take turns: next is the one whose last turn is longest ago, or who never had one. `changes`
    counts what may have changed the order."""

    def __init__(self, max_jobs: int, max_jobs_per_user: int):
        self.max_jobs, self.max_jobs_per_user = max_jobs, max_jobs_per_user
        self._waiting: dict[bytes, deque[PendingRequest]] = {}
        self._last_turn: dict[bytes, int] = {}
        self._turns = count(1)
        self.changes = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[PendingRequest]:
        """The requests in the order in which they would run if no more came."""
        users = sorted(self._waiting, key=lambda user: self._last_turn.get(user, 0))
        for turn in zip_longest(*(self._waiting[user] for user in users)):
            yield from filter(None, turn)

    def require_room(self, user: bytes) -> None:
        """Raises `QueueFull` where no other job of this user may wait."""
        own = len(self._waiting.get(user, ()))
        if own >= self.max_jobs_per_user:
            raise QueueFull(
                "{count} of your jobs wait already, which is as many as may; cancel one or wait until one is "
                "done.",
                count=own,
            )
        if len(self) >= self.max_jobs:
            raise QueueFull(
                "{count} jobs wait at the server, which is as many as may; try again when one is done.",
                count=len(self),
            )

    def add(self, request: PendingRequest) -> None:
        self._waiting.setdefault(request.user, deque()).append(request)
        self.changes += 1

    def put_back(self, request: PendingRequest) -> None:
        """Have a request that was taken come next."""
        self._waiting.setdefault(request.user, deque()).appendleft(request)
        self._last_turn[request.user] = -1
        self.changes += 1

    def take(self, request: PendingRequest) -> None:
        """Remove a request because its turn has come."""
        self.remove(request)
        self._last_turn[request.user] = next(self._turns)

    def remove(self, request: PendingRequest) -> None:
        waiting = self._waiting[request.user]
        waiting.remove(request)
        self.changes += 1
        if not waiting:
            del self._waiting[request.user]
