"""A folder that one process at a time may use; the system lets go of it when that process ends, however."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import ServerError


class LockedFolder:
    def __init__(self, folder: Path):
        """Raises `ServerError` when another process has it."""
        self._handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(self._handle, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            raise ServerError(
                f"Another server uses the jobs in {folder}; stop it, or name another folder with --jobs."
            ) from error

    def release(self) -> None:
        os.close(self._handle)
