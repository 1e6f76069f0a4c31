"""Encodes pictures as movies in a Blender process of its own, so that this one goes on."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import bpy

from ..takes.take import Take, TakeError
from ..texts import say

_SCRIPT = Path(__file__).with_name("encode_movie.py")


def movie_of(take: Take, rate: float = 1.0) -> dict[Path, list[Path]]:
    """What `MovieEncoding` makes of a take: its frames at its pace, for a sequencer of another frame rate as
    `Take.element_names` has them."""
    pictures = [take.folder / name for name in take.element_names(take.num_frames, rate)]
    return {take.folder / f"{take.name}.mp4": pictures}


def _own_profile(folder: Path) -> dict[str, str]:
    """The environment of a Blender that has a profile of its own: one with factory settings would take the
    packages of every extension out of the user's, since it has none of them enabled."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLENDER_USER_")}
    return kept | {"BLENDER_USER_RESOURCES": str(folder)}


class MovieEncoding:
    """One encoding under way, of one or more movies. `poll()` until it is true, then `result()`.

    movies: for each movie's path its pictures, frame for frame, all in one folder.
    """

    def __init__(self, movies: Mapping[Path, Sequence[Path]], fps: int, fps_base: float):
        self._scratch = tempfile.TemporaryDirectory(prefix="poseanything-")
        # Each gets its name when it is whole.
        self._parts = {path: path.with_name(f".{path.stem}.part.mp4") for path in movies}
        table = Path(self._scratch.name) / "movies.json"
        table.write_text(
            json.dumps(
                {str(self._parts[path]): [str(p) for p in pictures] for path, pictures in movies.items()}
            ),
            encoding="utf-8",
        )
        self._log = open(Path(self._scratch.name) / "log.txt", "w+", encoding="utf-8", errors="replace")
        arguments = [str(_SCRIPT), "--", str(fps), repr(fps_base), str(table)]
        if bpy.app.binary_path:
            command = [
                bpy.app.binary_path,
                "--background",
                "--factory-startup",
                "--python-exit-code",
                "1",
                "--python",
            ]
        else:
            command = [sys.executable]  # Blender as a module of this Python
        try:
            self._process = subprocess.Popen(
                [*command, *arguments],
                env=_own_profile(Path(self._scratch.name) / "profile"),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                creationflags=subprocess.CREATE_NO_WINDOW if sys.platform == "win32" else 0,
            )
        except OSError as error:
            self.close()
            raise TakeError(
                say("The movie can't be encoded: {reason}; the frames are complete.", reason=error.strerror)
            ) from error

    def poll(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    @property
    def begun(self) -> int:
        """How many of the movies are encoded or being encoded."""
        return sum(part.exists() for part in self._parts.values())

    def result(self) -> list[Path]:
        """The movies' paths. Raises `TakeError` when one is missing."""
        try:
            if self._process.returncode or not all(part.is_file() for part in self._parts.values()):
                self._log.seek(0)
                lines = [line.strip() for line in self._log if line.strip()]
                last = lines[-1] if lines else say("no reason given")
                raise TakeError(
                    say(
                        "The movie could not be encoded ({words}); the frames are complete.", words=last[:200]
                    )
                )
            for path, part in self._parts.items():
                try:
                    part.replace(path)
                except OSError as error:
                    raise TakeError(
                        say(
                            "{path} can't be written: {reason}; the frames are complete.",
                            path=path,
                            reason=error.strerror,
                        )
                    ) from error
            return list(self._parts)
        finally:
            self.close()

    def close(self) -> None:
        """End it if it still runs, and leave nothing behind."""
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5.0)  # ends at once, unless a disk holds it
        for part in self._parts.values():
            part.unlink(missing_ok=True)
        self._log.close()
        self._scratch.cleanup()
