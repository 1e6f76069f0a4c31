"""A generation request as a file: what would go over the wire, kept for later or for another machine.

After the first line come the parts of `wire.encode`, each after its length in 8 bytes, the lowest first.
"""

from __future__ import annotations

import os
from pathlib import Path

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
        for part in parts:
            file.write(memoryview(part).nbytes.to_bytes(8, "little"))
            file.write(part)
    os.replace(growing, path)


def read_request(path: str | os.PathLike[str]) -> GenerationRequest:
    """Read a request, with all the checks of the wire. Raises `MessageError` (one sentence), `OSError`."""
    name = Path(path).name
    with open(path, "rb") as file:
        if file.read(len(_FIRST_LINE)) != _FIRST_LINE:
            raise MessageError(f"{name} is no request of this bridge; choose a file that it has written.")
        parts: list[bytes] = []
        while length := file.read(8):
            size = int.from_bytes(length, "little")
            part = file.read(min(size, wire.MAX_PART + 1))
            if len(length) < 8 or len(part) != size or len(parts) == wire.MAX_PARTS:
                raise MessageError(f"{name} is damaged; write it again.")
            parts.append(part)
    if not parts:
        raise MessageError(f"{name} is damaged; write it again.")
    return wire.decode(parts, (GenerationRequest,))
