"""Memory running out: told from other faults, and what is given up for it."""

from __future__ import annotations

from typing import Literal

from shared.sentences import SentenceError

WORDS = ("allocate memory", "not enough memory", "insufficient memory", "out of memory", "alloc_failed")
HOST_WORDS = ("defaultcpuallocator", "cannot allocate memory", "not enough memory")

Place = Literal["card", "host"]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the host or on a device.

    torch says so by its own error where its allocator of the device does; by words for the host's, pinned
    memory and CUDA's libraries. OpenCV and the system do by words.
    """
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(word in str(error).lower() for word in WORDS)
    )


def where_memory_ran_out(error: BaseException) -> Place:
    """Whose memory an `is_out_of_memory` error speaks of. What CUDA doesn't say more of is the card's."""
    if type(error).__name__ == "OutOfMemoryError":
        return "card"
    in_words = any(word in str(error).lower() for word in HOST_WORDS)
    return "host" if isinstance(error, MemoryError) or in_words else "card"


class NotEnoughMemory(SentenceError, MemoryError):
    """The clip needs more memory than there is, on the last rung too. Its text is a sentence for the user."""
