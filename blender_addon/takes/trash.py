"""Takes to the system's trash, from where the user can have them back."""

from __future__ import annotations

from pathlib import Path

from send2trash import send2trash

from ..texts import say
from .take import RECORD, TakeError


def move_to_trash(folder: Path) -> None:
    """Move a take's folder to the trash; one that is not there, or that holds no take, is left alone. Raises
    `TakeError` where the disk has no trash or the folder is held, and leaves everything as it was."""
    if not (folder / RECORD).is_file():
        return
    try:
        send2trash(folder)
    except OSError as error:  # the library's own errors among them
        reason = error.strerror or str(error)
        raise TakeError(
            say(
                "{folder} can't be moved to the trash ({reason}); delete it by hand.",
                folder=folder,
                reason=reason,
            )
        ) from error
