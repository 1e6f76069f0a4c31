"""What listens at an address, where a connection comes about but no conversation does."""

from __future__ import annotations

import socket

from ..shared.address import Address

NOBODY, STRANGER, OPEN, LOCKED = "NOBODY", "STRANGER", "OPEN", "LOCKED"
"""Nothing is said, as by a tunnel whose other end is down; something is said that is not ZeroMQ; ZeroMQ
without keys, as in earlier releases; ZeroMQ that wants keys."""
_PATIENCE = 1.0
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00\r\n"
"""The beginning of ZMTP 3's (https://rfc.zeromq.org/spec/23/), which has the other side say all of its own,
and the end of a line, which has a web server speak up."""


def look(address: Address) -> str:
    """One of the names above, by what is said within about a second."""
    said = b""
    try:
        with socket.create_connection((address.host, address.port), _PATIENCE) as connection:
            connection.sendall(_GREETING)
            while len(said) < 32 and (more := connection.recv(64)):
                said += more
    except OSError:
        pass  # what was said until then counts
    if not said:
        return NOBODY
    if said[0] != 0xFF or len(said) < 10 or said[9] != 0x7F:
        return STRANGER
    if len(said) < 32:
        return NOBODY  # it was just ending
    return LOCKED if said[12:32].rstrip(b"\0") == b"CURVE" else OPEN
