"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from shared.schema import printable

GAP = "  "


def as_json(message: Any, indent: int | None = 1) -> str:
    """A message as JSON, its fields by their names; in one line without `indent`."""
    return json.dumps(dataclasses.asdict(message), indent=indent, ensure_ascii=False)


def as_table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Columns side by side, the last one cut to a terminal's width."""
    if not rows:
        return ""
    width = width or (shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000)
    table = [list(head), *map(list, rows)]
    for row in table:
        row[:] = map(printable, row)
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = (GAP.join(cell.ljust(size) for cell, size in zip(row, widths)).rstrip() for row in table)
    return "\n".join(line if len(line) <= width else line[: width - 1] + "…" for line in lines)


def size(count: int) -> str:
    """Bytes, for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def ago(moment: float, now: float | None = None) -> str:
    """How long ago something was, in seconds since 1970."""
    if not moment:
        return ""
    return duration((time.time() if now is None else now) - moment) + " ago"


def duration(seconds: float) -> str:
    """Seconds, in the largest unit of which there are two."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
