"""What the server says on its standard error: a line each, none of it another's doing, and not too many."""

from __future__ import annotations

import logging
import sys
import time

from shared.schema import printable

MOST, PERIOD = 20, 60.0
"""Lines of one kind that are written in so many seconds; what is more is counted."""


class Moderation(logging.Filter):
    """Lets no kind of line, those made from one template, fill the log."""

    def __init__(self):
        super().__init__()
        self._written: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        began, count = self._written.get(record.msg, (0.0, 0))
        now = time.monotonic()
        if count == 0 or now - began > PERIOD:
            self._written[record.msg] = now, 1
            if count > MOST:
                record.msg, record.args = f"{record.getMessage()} (and {count - MOST} more before)", ()
            return True
        self._written[record.msg] = began, count + 1
        return count < MOST


class _Formatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)


def log_to_stderr(form: str = "%(asctime)s %(levelname)s %(message)s") -> None:
    """Set up logging for a process that is a server."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(form))
    handler.addFilter(Moderation())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
