"""Damaged messages that are kept as files, and the means to find more of them.

A file of `tests/data/messages` holds the bytes of a message's stream, as `shared.pieces` puts them together:
its parts' number, their sizes, and the parts. What lies there are small messages of every kind, mutations of
them that the decoder refuses each for another reason, and all that has made it raise something else.
"""

from __future__ import annotations

import random
import re
import struct
import sys
import time
import tracemalloc
from pathlib import Path

import msgpack
from hypothesis import HealthCheck, Phase, given, settings

from shared import wire
from shared.messages import PIECE_BYTES, Piece
from shared.pieces import Assembly
from shared.schema import MessageError
from tests.contract.strategies import ALL_MESSAGES, of_class

FOLDER = Path(__file__).resolve().parents[1] / "data" / "messages"
MOST_BYTES = 4000
MOST_MEMORY = 64 << 20
"""Bytes that any of these small messages may take while it is read."""
MOST_SECONDS = 1.0
"""Of the processor's time; each takes a few milliseconds."""

STRANGE = (
    None, True, False, 0, -1, 1, 2**31, 2**32, 2**63 - 1, -(2**63), 2**64 - 1, 0.0, -0.0, 0.5, 1e308,
    float("nan"), float("inf"), "", "a", "\0\x1b[2J", "x" * 5000, b"", b"bytes", [], [0], [None] * 3, {},
    {"": 0}, {"part": 0, "shape": [0, 2**20, 3]}, {"part": 1, "shape": [2**32, 2**32, 3]},
    msgpack.ExtType(5, b""), msgpack.Timestamp(0, 0), [[[[[]]]]], {"a": {"a": {}}},
)  # fmt: skip


def stream(parts) -> bytes:
    """The parts as the bytes of a stream."""
    parts = [bytes(part) for part in parts]
    return struct.pack(f"<I{len(parts)}Q", len(parts), *map(len, parts)) + b"".join(parts)


def parts_of(data: bytes) -> list[bytes]:
    """Of a stream that is whole."""
    assembly = Assembly(1, len(data))
    for offset in range(0, len(data), PIECE_BYTES):
        assembly.add(Piece(1, offset, len(data), data[offset : offset + PIECE_BYTES]))
        if assembly.hungry:
            assembly.grant()
    return [bytes(part) for part in assembly.parts()]


def refusal(data: bytes) -> str | None:
    """The sentence with which a stream's message is refused, None for one that is read."""
    try:
        message = wire.decode(parts_of(data))
    except MessageError as error:
        return str(error)
    assert type(message) in ALL_MESSAGES
    return None


def fault(data: bytes) -> str:
    """What is wrong with how a stream is read: another exception, or too much memory or time; else empty."""
    tracemalloc.start()
    begun = time.thread_time()
    try:
        refusal(data)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        seconds, memory = time.thread_time() - begun, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return "" if memory <= MOST_MEMORY and seconds <= MOST_SECONDS else f"{memory} bytes, {seconds:.2f} s"


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A message's stream with something changed: a value of its table, its parts, or bytes anywhere."""
    parts = parts_of(data)
    for _ in range(chance.randint(1, 3)):
        way = chance.choice(("value", "value", "value", "part", "bytes", "whole"))
        if way == "value":
            try:
                parts[0] = msgpack.packb(_changed(msgpack.unpackb(parts[0]), chance))
                continue
            except (ValueError, TypeError, msgpack.UnpackException):
                pass  # an earlier change has left no table
        if way == "part":
            here, there = (chance.randrange(len(parts)) for _ in range(2))
            match chance.choice(("double", "move", "lose")):
                case "double":
                    parts.insert(here, parts[there])
                case "move":
                    parts.append(parts.pop(here))
                case "lose" if len(parts) > 1:
                    del parts[here]
        elif way == "whole":
            return bytes(_damaged(stream(parts), chance))
        else:
            index = chance.randrange(len(parts))
            parts[index] = bytes(_damaged(parts[index], chance))
    return stream(parts)


def _damaged(data: bytes, chance: random.Random) -> bytearray:
    damaged = bytearray(data)
    begin = chance.randint(0, len(damaged))
    end = min(begin + chance.choice((0, 1, 1, 4, 1000)), len(damaged))
    damaged[begin:end] = chance.randbytes(chance.choice((0, 1, 1, 4, 8)))
    return damaged


def _changed(node, chance: random.Random):
    """The value with one within it replaced, left out or put in."""
    if isinstance(node, (dict, list)) and node and chance.random() < 0.8:
        key = chance.choice(sorted(node) if isinstance(node, dict) else range(len(node)))
        if chance.random() < 0.15:
            del node[key]
        else:
            node[key] = _changed(node[key], chance)
        return node
    return chance.choice(STRANGE)


def kept() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir())}


def samples(kind: type, count: int) -> list[bytes]:
    """The smallest of many messages of a kind."""
    found: list[bytes] = []

    @settings(max_examples=30, database=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(of_class(kind))
    def make(message):
        found.append(stream(wire.encode(message)))

    make()
    return sorted({data for data in found if len(data) < MOST_BYTES}, key=len)[
        :: max(len(found) // count, 1)
    ][:count]


def grow(tries: int, seed: int) -> None:
    """Keep what is refused with a sentence of a new shape, and whatever is not read as it should be."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for kind in ALL_MESSAGES:
        if not list(FOLDER.glob(f"{kind.__name__}-valid-*")):
            for number, data in enumerate(samples(kind, 2)):
                (FOLDER / f"{kind.__name__}-valid-{number}").write_bytes(data)
    chance = random.Random(seed)
    valid = [(name, data) for name, data in kept().items() if "-valid-" in name]

    def shape(sentence: str | None) -> str:
        return re.sub(r"'.*'|[-+.\d]+", "#", sentence or "")

    shapes = {shape(refusal(data)) for name, data in kept().items() if "-fault-" not in name}
    for _ in range(tries):
        name, data = chance.choice(valid)
        changed, kind = mutated(data, chance), name.split("-")[0]
        what = "fault" if (wrong := fault(changed)) else "refused"
        if wrong:
            print(f"{kind}: {wrong}")
        key = shape(wrong or refusal(changed))
        if key not in shapes and (wrong or len(changed) < MOST_BYTES):
            shapes.add(key)
            number = len(list(FOLDER.glob(f"{kind}-{what}-*")))
            (FOLDER / f"{kind}-{what}-{number}").write_bytes(changed)


if __name__ == "__main__":
    grow(int(sys.argv[1]), int(sys.argv[2]))
