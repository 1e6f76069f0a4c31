"""Memory running out, told from other errors."""

from __future__ import annotations

WORDS = ("allocate memory", "not enough memory", "insufficient memory", "out of memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the host or on a device. torch says so by its own error where its allocator of the
    device does; by words for the host's, pinned memory and CUDA's libraries. OpenCV and the system do by words."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(word in str(error).lower() for word in WORDS)
    )
