"""How far a command is: on a terminal one line that changes, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import time
from typing import TextIO

QUIET_SECONDS = 5.0
"""Where lines stay, so long nothing is said after one."""


def clock(seconds: float) -> str:
    """m:ss, and h:mm:ss from an hour on."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class ProgressLine:
    """Tells a text again and again. `done`, and leaving it as a context, ends the line on a terminal and says
    the last text elsewhere.

    stream: where it is told; default: standard error as it is then.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = sys.stderr if stream is None else stream
        self._changes = self._stream.isatty()
        self._told_at = float("-inf")
        self._text = self._told = ""

    def __call__(self, text: str) -> None:
        self._text = text
        if self._changes or time.monotonic() - self._told_at > QUIET_SECONDS:
            self._tell()

    def done(self) -> None:
        """No more is told of this; nothing where nothing was."""
        if self._text != self._told:
            self._tell()
        if self._changes and self._told:
            print(file=self._stream, flush=True)
        self._text = self._told = ""

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_) -> None:
        self.done()

    def _tell(self) -> None:
        line = f"\r\033[K{self._text}" if self._changes else self._text
        print(line, end="" if self._changes else "\n", file=self._stream, flush=True)
        self._told_at, self._told = time.monotonic(), self._text
