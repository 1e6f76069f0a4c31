"""Which program listens at a port of this computer, as the system tells. It knows nothing of bpy."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_LISTENS = "0A"
"""The state of a socket in Linux's tables."""
_PATIENCE = 5.0


class Listener(NamedTuple):
    """A program and the number of its process."""

    name: str
    pid: int


def find_listener(port: int) -> Listener | None:
    """None where the system does not tell, as it may not of another user's programs."""
    try:
        if sys.platform == "win32":
            return _on_windows(port)
        return _on_linux(port) if sys.platform == "linux" else _on_macos(port)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def _on_linux(port: int, proc: Path = Path("/proc")) -> Listener | None:
    sockets = set()
    for table in ("net/tcp", "net/tcp6"):
        for line in (proc / table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == _LISTENS and int(local.rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{inode}]")
    for process in proc.glob("[0-9]*"):
        try:
            if any(os.readlink(handle) in sockets for handle in (process / "fd").iterdir()):
                return Listener((process / "comm").read_text().strip(), int(process.name))
        except OSError:
            continue  # another user's, or ended meanwhile
    return None


def _on_macos(port: int) -> Listener | None:
    fields = _printed("lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc").splitlines()
    said = {field[0]: field[1:] for field in fields}
    return Listener(said["c"], int(said["p"])) if {"c", "p"} <= said.keys() else None


def _on_windows(port: int) -> Listener | None:
    table = _printed("netstat", "-ano", "-p", "TCP")
    # Its word for what listens is in the user's language.
    found = re.search(rf":{port}\s+0\.0\.0\.0:0\s+\S+\s+(\d+)", table)
    if found is None:
        return None
    named = _printed("tasklist", "/FI", f"PID eq {found[1]}", "/FO", "CSV", "/NH")
    return Listener(next(csv.reader([named]))[0], int(found[1]))


def _printed(*command: str) -> str:
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=_PATIENCE, creationflags=hidden
    ).stdout
