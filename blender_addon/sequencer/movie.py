"""Encodes takes as movies in a Blender process of its own, so that this one goes on."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import bpy

from ..takes.take import Take, TakeError

_SCRIPT = Path(__file__).with_name("encode_movie.py")


class MovieEncoding:
    """One encoding under way. `poll()` until it is true, then `result()`."""

    def __init__(self, take: Take, fps: int, fps_base: float):
        self.path = take.folder / f"{take.name}.mp4"
        self._scratch = tempfile.TemporaryDirectory(prefix="poseanything-")
        names = Path(self._scratch.name) / "names.txt"
        pictures = [str(take.folder / name) for name in take.element_names(take.num_frames)]
        names.write_text("\n".join(pictures), encoding="utf-8")
        # It gets its name when it is whole.
        self._part = take.folder / f".{take.name}.part.mp4"
        self._log = open(Path(self._scratch.name) / "log.txt", "w+", encoding="utf-8", errors="replace")
        arguments = [str(_SCRIPT), "--", str(self._part), str(fps), repr(fps_base), str(names)]
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
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                creationflags=subprocess.CREATE_NO_WINDOW if sys.platform == "win32" else 0,
            )
        except OSError as error:
            self.close()
            raise TakeError(
                f"The movie of {take.name} can't be encoded: {error.strerror}; its frames are complete."
            ) from error

    def poll(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def result(self) -> Path:
        """The movie's path. Raises `TakeError` when there is none."""
        try:
            if self._process.returncode or not self._part.is_file():
                self._log.seek(0)
                lines = [line.strip() for line in self._log if line.strip()]
                last = lines[-1] if lines else "no reason given"
                raise TakeError(f"The movie could not be encoded ({last[:200]}); the frames are complete.")
            try:
                self._part.replace(self.path)
            except OSError as error:
                raise TakeError(
                    f"{self.path} can't be written: {error.strerror}; the frames are complete."
                ) from error
            return self.path
        finally:
            self.close()

    def close(self) -> None:
        """End it if it still runs, and leave nothing behind."""
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        self._part.unlink(missing_ok=True)
        self._log.close()
        self._scratch.cleanup()
