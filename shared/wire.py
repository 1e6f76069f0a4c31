"""Messages as multipart ZeroMQ messages, and back from bytes that nobody vouches for.

Part 0 is a msgpack table: `type`, `version` and the message's fields. The parts after it are bulk data
(pictures, arrays) that the fields refer to by index; they are sent and read in place. Nothing is ever
unpickled, no object is ever made that is not declared in `shared.messages`, and sizes, counts and depth are
bounded before memory is spent on them.

    socket.send_multipart(wire.encode(messages.Hello(client="my client")), copy=False)
    welcome = wire.decode(socket.recv_multipart(), messages.SERVER_MESSAGES)
    print([engine.label for engine in welcome.engines])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from . import messages
from .schema import MessageError, pack_fields, unpack_fields

MAX_HEADER = 1 << 20
MAX_PARTS = 64
MAX_PART = 64 << 20
MAX_TOTAL = 256 << 20

_FOREIGN = "The message can't be read: it is not one of this bridge's; connect to the bridge's own server."
_TYPES = {cls.__name__: cls for cls in messages.CLIENT_MESSAGES + messages.SERVER_MESSAGES}


class VersionError(MessageError):
    """The other side speaks another version of the protocol."""


def encode(message: Any) -> list[bytes | memoryview]:
    """The parts to send. Bulk parts are views of the message's memory, to be left as it is until they are
    gone.

    Raises `MessageError` for a message that the other side would refuse for its size: it may cut the
    connection over a part larger than `MAX_PART` before it could say why.
    """
    bulk: list[bytes | memoryview] = []
    fields = pack_fields(message, bulk)
    header = {"type": type(message).__name__, "version": messages.PROTOCOL_VERSION, **fields}
    parts = [msgpack.packb(header, use_bin_type=True), *bulk]
    _check_size(parts)
    return parts


def decode(parts: Sequence[bytes | memoryview], allowed: Sequence[type] | None = None) -> Any:
    """Read a message; arrays and pictures in it are views of `parts`.

    Raises `MessageError` (one sentence) for anything the contract does not allow, `VersionError` for another
    version. `allowed` narrows the message types, for instance to `messages.CLIENT_MESSAGES` on the server.
    """
    header = read_header(parts)
    version, kind = header.get("version"), header["type"]
    if not isinstance(version, int) or isinstance(version, bool):
        raise MessageError(_FOREIGN)
    if version != messages.PROTOCOL_VERSION:
        raise VersionError(
            "The other side speaks protocol version {version}, this one {own}; "
            "install the same release of the extension and of the server.",
            version=version,
            own=messages.PROTOCOL_VERSION,
        )
    cls = _TYPES.get(kind)
    if cls is None or (allowed is not None and cls not in allowed):
        raise MessageError(
            "A message of the type {kind!r} is not expected here; use the same release at both ends.",
            kind=kind[:40],
        )
    return unpack_fields(cls, header, parts[1:])


def read_header(parts: Sequence[bytes | memoryview]) -> dict[str, Any]:
    """The table of part 0, within the limits: its `type` is text, nothing else of it is checked yet. Raises
    `MessageError`."""
    if not 1 <= len(parts) <= MAX_PARTS:
        raise MessageError(
            "The message has {count} parts; between 1 and {limit} are allowed.",
            count=len(parts),
            limit=MAX_PARTS,
        )
    _check_size(parts)
    try:
        header = msgpack.unpackb(
            parts[0],
            raw=False,
            object_pairs_hook=_table,
            strict_map_key=True,
            max_str_len=65536,
            max_bin_len=65536,
            max_ext_len=0,
            max_array_len=4096,
            max_map_len=256,
        )
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError):
        raise MessageError(_FOREIGN) from None
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise MessageError(_FOREIGN)
    return header


def _table(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice")
    return table


def _check_size(parts: Sequence[bytes | memoryview]) -> None:
    sizes = [memoryview(part).nbytes for part in parts]
    if sizes[0] > MAX_HEADER or max(sizes) > MAX_PART or sum(sizes) > MAX_TOTAL:
        raise MessageError("The message is too large; choose a smaller size, fewer frames or shorter texts.")
