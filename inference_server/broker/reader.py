"""Clients' messages are read beside the loop, as some take long: each user's in order, users in turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

from shared import messages, wire
from shared.messages import CLIENT_MESSAGES

from .frontend import Client

READABLE = tuple(kind for kind in CLIENT_MESSAGES if kind is not messages.Piece)
"""Pieces are put together by the front end; a piece made of pieces is nothing."""
SMALL = 4096
"""Bytes of a message that is read by the loop itself, as unpacking it can't take long."""
MOST_BACKLOG = 320 << 20
"""Bytes of a user's messages that wait to be read."""

Buffers: TypeAlias = Sequence[memoryview]
Read: TypeAlias = messages.Checked | Exception
"""A message, or what made it unreadable."""


@dataclass
class _Backlog:
    """What of a user's messages waits to be read. While there is one, another message of theirs is being read
    or heeded."""

    messages: deque[tuple[Client, Buffers]] = field(default_factory=deque)
    bytes: int = 0


class Reader:
    """A user's next message comes after `go_on` alone: until then the one before it is not over.

    ring: called in another thread whenever a message has been read.
    """

    def __init__(self, ring: Callable[[], None]):
        self._ring = ring
        self._thread = ThreadPoolExecutor(1, "reader")
        self._backlogs: dict[bytes, _Backlog] = {}
        self._read: deque[tuple[Client, Buffers, Read]] = deque()

    def take(self, client: Client, buffers: Buffers) -> bool:
        """A message has come. False where its user's wait in such numbers that it can't be taken."""
        size = sum(map(len, buffers))
        backlog = self._backlogs.get(client.user)
        if backlog is None:
            self._backlogs[client.user] = _Backlog()
            if size <= SMALL:
                self._read.append((client, buffers, _read(buffers)))
            else:
                self._begin(client, buffers)
            return True
        if backlog.bytes + size > MOST_BACKLOG:
            return False
        backlog.messages.append((client, buffers))
        backlog.bytes += size
        return True

    def _begin(self, client: Client, buffers: Buffers) -> None:
        def tell(future: Future) -> None:
            self._read.append((client, buffers, future.result()))
            self._ring()

        self._thread.submit(_read, buffers).add_done_callback(tell)

    def read(self) -> Iterator[tuple[Client, Buffers, Read]]:
        """The messages that have been read by now."""
        while self._read:
            yield self._read.popleft()

    def go_on(self, user: bytes) -> None:
        """The message of a user that was read last has been dealt with; nothing happens where that was said
        before."""
        backlog = self._backlogs.get(user)
        if backlog is None:
            return
        if not backlog.messages:
            del self._backlogs[user]
            return
        client, buffers = backlog.messages.popleft()
        backlog.bytes -= sum(map(len, buffers))
        self._begin(client, buffers)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


def _read(buffers: Buffers) -> Read:
    try:
        return wire.decode(buffers, READABLE)
    except Exception as error:
        return error
