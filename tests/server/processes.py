"""Whether processes live, and which ones a process has started."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from .client import PATIENCE


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z" if sys.platform == "linux" else True


def wait_for_end(process: int) -> None:
    """Wait until a process has ended; fails when it does not."""
    deadline = time.monotonic() + PATIENCE
    while alive(process):
        assert time.monotonic() < deadline, f"process {process} goes on"
        time.sleep(0.05)


def descendants(process: int) -> list[int]:
    """A process and all that it and its children have started (Linux)."""
    found = [process]
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
        if parent == process:
            found += descendants(int(status.parent.name))
    return found
