"""What a worker process says with each sign of life: the memory that it holds, and its card."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgpack


def measure() -> bytes:
    """A msgpack table: `memory`, the bytes of the host that this process holds; `card_used` and `card_total`
    of its graphics card, by whomever, 0 where none is in use."""
    used, total = _card_memory()
    return msgpack.packb({"memory": _host_memory(), "card_used": used, "card_total": total})


def _host_memory() -> int:
    """Resident bytes; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        pass
    try:
        import psutil  # comes with the neural engine

        return psutil.Process().memory_info().rss
    except Exception:
        return 0


def _card_memory() -> tuple[int, int]:
    torch = sys.modules.get("torch")  # whoever uses the card has imported it
    try:
        if torch is None or not torch.cuda.is_initialized():
            return 0, 0
        free, total = torch.cuda.mem_get_info()
        return total - free, total
    except Exception:  # a card that has failed, or a torch that is only half imported
        return 0, 0
