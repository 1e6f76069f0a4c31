"""Folders that one process at a time may use; the system lets go of them when that process ends, however."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from . import ServerError

PREFIX = "poseanything-server-"
YOUNG = 60.0
"""Seconds in which the lock of a folder that was just made may not be there yet."""


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
                "Another server uses the jobs in {folder}; stop it, or name another folder with --jobs.",
                folder=folder,
            ) from error

    def release(self) -> None:
        os.close(self._handle)


class PassingFolder:
    """A folder for what a server needs while it runs, such as its workers' sockets: only this user can enter
    it. Those of servers that were killed together with their workers are removed.

    Raises `ServerError` where there is no place for it.
    """

    def __init__(self):
        try:
            _remove_leavings(Path(tempfile.gettempdir()))
            self._folder = tempfile.TemporaryDirectory(prefix=PREFIX)
            self.name = self._folder.name
            self._lock = LockedFolder(Path(self.name))
        except OSError as error:
            raise ServerError(
                "There is no place for temporary files ({reason}); have TMPDIR name a folder that can be "
                "written to.",
                reason=error.strerror,
            ) from error

    def cleanup(self) -> None:
        self._lock.release()
        self._folder.cleanup()


def _remove_leavings(place: Path) -> None:
    for folder in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ServerError):  # another user's, or in use
            status = folder.lstat()
            own = sys.platform == "win32" or status.st_uid == os.getuid()
            if own and time.time() - status.st_mtime > YOUNG:
                LockedFolder(folder).release()
                shutil.rmtree(folder, ignore_errors=True)
