"""Other processes: what they say, whether they live, and which ones a process has started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Seconds after which a test that waits for another process gives up."""


def start_server(settings: dict) -> subprocess.Popen:
    """The server as `tests.server.serve` makes it of the settings, in a process of its own, which says on its
    standard output where it listens and ends with its standard input."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.server.serve", json.dumps(settings)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


class Output:
    """Reads a stream of another process until it ends, and closes it: the process never waits for a reader,
    and one that says nothing makes a test fail, not wait. `text` is all that came so far."""

    def __init__(self, stream: TextIO):
        self._lines: list[str] = []
        self._taken = 0
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._reader.start()

    def _read(self, stream: TextIO) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def text(self) -> str:
        return "".join(self._lines)

    def line(self, begins: str = "", seconds: float = PATIENCE) -> str:
        """The next line that begins so; those before it are passed over. Raises `AssertionError`, with all
        that was said, where the stream ends without one or none comes in time."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                while self._taken < len(self._lines):
                    self._taken += 1
                    if self._lines[self._taken - 1].startswith(begins):
                        return self._lines[self._taken - 1]
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    how = "it ended" if self._ended else f"it goes on after {seconds:.0f} s"
                    raise AssertionError(f"{how}, and no line begins with {begins!r}; it said: {self.text}")
                self._changed.wait(left)

    def rest(self, seconds: float = PATIENCE) -> str:
        """All that was said, once the stream has ended. Raises `AssertionError` where it does not in time."""
        self._reader.join(seconds)
        assert not self._reader.is_alive(), f"it goes on after {seconds:.0f} s; it said: {self.text}"
        return self.text


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
