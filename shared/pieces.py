"""Large messages to the server, in pieces that it asks for.

A server takes from a connection no more than a piece at a time, so that what anybody can have it hold is
bounded. A message that is larger than a piece goes as a stream of them: the first few at once, then as many
as the server grants with `More`. Streams of one connection follow each other.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from . import wire
from .messages import PIECE_BYTES, More, Piece
from .schema import MessageError

UNASKED = 4 * PIECE_BYTES
"""Bytes of a stream that may be sent before the server has asked for more."""
WINDOW = 16 * PIECE_BYTES
"""Bytes that a server asks for beyond what it has."""
OFTEN = 2 * PIECE_BYTES
"""It asks again after so many more, so that a client on a slow line hears that it is there."""


class Sender:
    """Sends messages of any size over one connection.

    send: takes the parts of one ZeroMQ message; false when it can't be sent for now. `pump` tries again.
    """

    def __init__(self, send: Callable[[Sequence], bool]):
        self._send = send
        self._streams = count(1)
        self._waiting: deque[_Stream] = deque()

    def send(self, message: Any) -> bool:
        """Send a message, or begin to; false when it can't be begun for now.

        Raises `MessageError` for one that is too large."""
        parts = wire.encode(message)
        if sum(memoryview(part).nbytes for part in parts) <= PIECE_BYTES:
            return self._send(parts)
        self._waiting.append(_Stream(next(self._streams), parts, getattr(message, "job", "")))
        self.pump()
        return True

    def hear(self, more: More) -> None:
        """The server wants more of a stream."""
        if self._waiting and self._waiting[0].number == more.stream:
            self._waiting[0].granted = max(self._waiting[0].granted, more.upto)
            self.pump()

    def pump(self) -> None:
        """Send what may be sent now."""
        while self._waiting:
            stream = self._waiting[0]
            while stream.sent < min(stream.granted, stream.total):
                if not self._send(wire.encode(stream.next_piece())):
                    return
                stream.sent = min(stream.sent + PIECE_BYTES, stream.total)
            if stream.sent < stream.total:
                return
            self._waiting.popleft()

    def drop(self, job: str) -> None:
        """Send no more of what belongs to a job."""
        self._waiting = deque(stream for stream in self._waiting if stream.job != job)

    def clear(self) -> None:
        """The connection has ended, and with it what was on its way."""
        self._waiting.clear()


class _Stream:
    def __init__(self, number: int, parts: Sequence, job: str):
        self.number, self.job = number, job
        sizes = [memoryview(part).nbytes for part in parts]
        head = struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
        self._data = b"".join([head, *parts])
        self.total, self.sent, self.granted = len(self._data), 0, UNASKED

    def next_piece(self) -> Piece:
        data = memoryview(self._data)[self.sent : self.sent + PIECE_BYTES]
        return Piece(stream=self.number, offset=self.sent, total=self.total, data=data)


class Assembly:
    """The other end of a stream: takes pieces in order, and says what more is wanted."""

    def __init__(self, stream: int, total: int):
        self.stream, self.total, self.granted = stream, total, UNASKED
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data)

    def add(self, piece: Piece) -> None:
        """Raises `MessageError` for a piece that was not asked for."""
        end = piece.offset + memoryview(piece.data).nbytes
        expected = (self.stream, self.total, len(self._data))
        if (piece.stream, piece.total, piece.offset) != expected or end > min(self.total, self.granted):
            raise MessageError("A piece of a message came that was not asked for; send the message again.")
        self._data += piece.data

    @property
    def whole(self) -> bool:
        return len(self._data) == self.total

    @property
    def hungry(self) -> bool:
        """Whether it is time to ask for more."""
        return self.granted < self.total and len(self._data) + WINDOW - OFTEN >= self.granted

    def grant(self) -> More:
        """Ask for more."""
        self.granted = min(self.total, len(self._data) + WINDOW)
        return More(stream=self.stream, upto=self.granted)

    def parts(self) -> list[memoryview]:
        """The message, once it is whole. Raises `MessageError`."""
        data = memoryview(self._data).toreadonly()
        try:
            (number,) = struct.unpack_from("<I", data)
            if not 1 <= number <= wire.MAX_PARTS:
                raise MessageError(
                    "The message has {number} parts; up to {limit} are allowed.",
                    number=number,
                    limit=wire.MAX_PARTS,
                )
            sizes = struct.unpack_from(f"<{number}Q", data, 4)
        except struct.error:
            sizes = (-1,)
        begin, parts = 4 + 8 * len(sizes), []
        if begin + sum(sizes) != self.total:
            raise MessageError("The message is not whole; send it again.")
        for size in sizes:
            parts.append(data[begin : begin + size])
            begin += size
        return parts
