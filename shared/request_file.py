"""A generation request as a file: what would go over the wire, kept for later or for another machine.

After the first line come the parts of `wire.encode`, each after its length in 8 bytes, the lowest first.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from . import wire
from .messages import GenerationRequest
from .schema import MessageError

SUFFIX = ".poserequest"
_FIRST_LINE = b"PoseAnything Bridge request\n"


def write_request(path: str | os.PathLike[str], request: GenerationRequest) -> None:
    """Write a request; a file that is there is replaced once the new one is whole.

    Raises `MessageError` for a request over the wire's limits, `OSError` when it can't be written.
    """
    path = Path(path)
    parts = wire.encode(request)
    growing = path.with_name(path.name + ".part")
    with open(growing, "wb") as file:
        file.write(_FIRST_LINE)
        _write_parts(file, parts)
    os.replace(growing, path)


def read_request(path: str | os.PathLike[str]) -> GenerationRequest:
    """Read a request, with all the checks of the wire. Raises `MessageError` (one sentence), `OSError`."""
    name = Path(path).name
    with open(path, "rb") as file:
        if file.read(len(_FIRST_LINE)) != _FIRST_LINE:
            raise MessageError(
                "{name} is no request of this bridge; choose a file that it has written.", name=name
            )
        return _read_message(file, GenerationRequest, name)


def to_bytes(message: Any) -> bytes:
    """Any message, to be kept where bytes can be. Raises `MessageError` where it is over the wire's
    limits."""
    kept = io.BytesIO()
    _write_parts(kept, wire.encode(message))
    return kept.getvalue()


def from_bytes(data: bytes, kind: type, name: str) -> Any:
    """A message of a kind that `to_bytes` has kept, with all the checks of the wire; `name` is what a
    sentence calls it. Raises `MessageError`."""
    return _read_message(io.BytesIO(data), kind, name)


def _write_parts(file: BinaryIO, parts: Iterable[bytes | memoryview]) -> None:
    for part in parts:
        file.write(memoryview(part).nbytes.to_bytes(8, "little"))
        file.write(part)


def _read_message(file: BinaryIO, kind: type, name: str) -> Any:
    parts: list[bytes] = []
    while length := file.read(8):
        size = int.from_bytes(length, "little")
        part = file.read(min(size, wire.MAX_PART + 1))
        if len(length) < 8 or len(part) != size or len(parts) == wire.MAX_PARTS:
            raise MessageError("{name} is damaged; write it again.", name=name)
        parts.append(part)
    if not parts:
        raise MessageError("{name} is damaged; write it again.", name=name)
    return wire.decode(parts, (kind,))
