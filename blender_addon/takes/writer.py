"""Writes result frames to a take's folder, in the client's thread, as the bytes that came."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..texts import say
from .take import frame_name


class WriteError(Exception):
    """A frame can't be written. Its text is one sentence that says why and what to do. What is `passing` can
    be mended, and the rest be written then."""

    def __init__(self, sentence: str, passing: bool = False):
        super().__init__(sentence)
        self.passing = passing


class TakeWriter:
    """Puts frame after frame of one take into its folder.

    written: the first so many frames are there already.
    folder: exists and belongs to this take alone. A frame is written under a hidden name and renamed when
    it is whole, so that neither Blender nor the user ever opens half a picture.
    """

    what = "clip"

    def __init__(self, folder: Path, name: str, num_frames: int, written: int = 0):
        self.folder = folder
        self.name = name
        self.num_frames = num_frames
        self.written = written

    def write(self, data: bytes | memoryview) -> None:
        """Write the next frame. Raises `WriteError`; what was written before stays."""
        path = self.folder / frame_name(self.name, self.written)
        part = path.with_name(f".{path.name}.part")
        try:
            with open(part, "wb") as file:
                file.write(data)
            os.replace(part, path)
        except OSError as error:
            _discard(part)
            raise WriteError(self._explain(error), passing=self.folder.is_dir()) from error
        self.written += 1

    def _explain(self, error: OSError) -> str:
        kept = say(
            "the {written} of {total} frames that arrived are kept",
            written=self.written,
            total=self.num_frames,
        )
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return say(
                "The disk of {folder} is full ({kept}); make room, then fetch the rest.",
                folder=self.folder,
                kept=kept,
            )
        if not self.folder.is_dir():
            return say("The folder {folder} is gone; generate again.", folder=self.folder)
        return say(
            "{folder} can't be written to: {reason} ({kept}); mend that, then fetch the rest.",
            folder=self.folder,
            reason=error.strerror,
            kept=kept,
        )


class NoFrames:
    """In place of a `TakeWriter` for what the server answers without frames."""

    what = "search"
    num_frames = written = 0

    def write(self, data: bytes | memoryview) -> None:
        raise WriteError("The server sent a frame where none was asked for; install the same release there.")


def _discard(part: Path) -> None:
    try:
        part.unlink()
    except OSError:
        pass  # never made, or refused too: the error that brought us here says what matters
