"""Messages of any size come whole through pieces, and nobody can make the other end hold what it did not ask
for."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import wire
from shared.messages import CLIENT_MESSAGES, PIECE_BYTES, More, Piece
from shared.pieces import UNASKED, WINDOW, Assembly, Sender
from shared.schema import MessageError
from tests.contract.strategies import png
from tests.server.client import request

LARGE = request("large", "plain", first_frame=png(64, 48) + bytes(3 << 20))


class Link:
    """A connection that takes only so many messages at a time, and its other end."""

    def __init__(self, room: int):
        self.room = self.left = room
        self.came: list = []
        self.assembly: Assembly | None = None
        self.most = 0

    def send(self, parts) -> bool:
        if not self.left:
            return False
        self.left -= 1
        assert sum(memoryview(part).nbytes for part in parts) <= PIECE_BYTES + 4096
        message = wire.decode([memoryview(bytes(part)) for part in parts], CLIENT_MESSAGES)
        if not isinstance(message, Piece):
            self.came.append(message)
            return True
        if message.offset == 0:
            self.assembly = Assembly(message.stream, message.total)
        self.assembly.add(message)
        self.most = max(self.most, len(self.assembly))
        if self.assembly.whole:
            self.came.append(wire.decode(self.assembly.parts(), CLIENT_MESSAGES))
            self.assembly = None
        return True


@given(st.integers(1, 50), st.lists(st.booleans(), min_size=1, max_size=4))
def test_messages_come_whole_and_in_order(room, sizes):
    link = Link(room)
    sender = Sender(link.send)
    sent = [LARGE if large else request(f"small {i}", "plain") for i, large in enumerate(sizes)]
    large = [message for message in sent if message is LARGE]
    for message in sent:
        while not sender.send(message):
            link.left = link.room
    for _ in range(1000):
        link.left = link.room
        sender.pump()
        if link.assembly is not None and link.assembly.hungry:
            sender.hear(link.assembly.grant())
    assert [m.job for m in link.came if m.job == "large"] == ["large"] * len(large)
    assert len(link.came) == len(sent)
    assert all(bytes(m.first_frame) == LARGE.first_frame for m in link.came if m.job == "large")


def test_no_more_is_sent_than_was_asked_for():
    link = Link(10_000)
    sender = Sender(link.send)
    sender.send(LARGE)
    assert link.most == UNASKED and not link.came
    sender.hear(More(stream=99, upto=1 << 30))
    assert link.most == UNASKED
    sender.hear(link.assembly.grant())
    assert link.most == UNASKED + WINDOW
    sender.drop("large")
    sender.hear(link.assembly.grant())
    assert link.most == UNASKED + WINDOW


@pytest.mark.parametrize(
    "changes",
    [{"stream": 2}, {"total": 999}, {"offset": PIECE_BYTES + 1}, {"data": bytes(1000)}],
)
def test_pieces_that_do_not_belong_are_refused(changes):
    assembly = Assembly(1, PIECE_BYTES + 500)
    assembly.add(Piece(stream=1, offset=0, total=PIECE_BYTES + 500, data=bytes(PIECE_BYTES)))
    fields = {"stream": 1, "offset": PIECE_BYTES, "total": PIECE_BYTES + 500, "data": bytes(500)}
    with pytest.raises(MessageError, match="was not asked for"):
        assembly.add(Piece(**fields | changes))


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        struct.pack("<I", 0),
        struct.pack("<I", 1 << 31),
        struct.pack("<IQ", 1, 5),
        struct.pack("<IQQ", 2, 2**64 - 1, 1) + b"ab",
        struct.pack("<IQ", 2, 1),
    ],
)
def test_streams_that_are_no_message_are_refused(data):
    assembly = Assembly(1, len(data))
    assembly.add(Piece(stream=1, offset=0, total=len(data), data=data))
    with pytest.raises(MessageError):
        assembly.parts()
