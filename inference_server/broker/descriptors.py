"""File descriptors: every connection takes one, and a worker's start some."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys

ENOUGH = 65536


def spare_descriptors() -> int:
    """How many connections leave enough for workers and files."""
    if sys.platform == "win32":
        return ENOUGH
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


def raise_descriptor_limit() -> None:
    """Let this process and its workers have as many as the system allows, up to a number that is enough; by
    default it is often 1024, which a careless program's idle connections use up."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def received_bytes(handle: int) -> int:
    """How many bytes have come over a TCP connection, by its handle; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    try:
        connection = socket.socket(fileno=handle)
    except OSError:
        return 0
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
    except OSError:
        return 0
    finally:
        connection.detach()
    return struct.unpack_from("<Q", told, 128)[0] if len(told) >= 136 else 0  # tcpi_bytes_received
