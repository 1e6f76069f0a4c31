"""Fetching an engine's weights by the server's own command, as a process of this Blender. What came stays
when it is cancelled, and the next run goes on from there. It knows nothing of bpy."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path

from ..shared.fetching import CHECKING, Fetched
from ..shared.schema import printable
from ..shared.sentences import last_words
from ..texts import say
from .server import find_checkout, launch

IDLE, RUNNING, FAILED = "IDLE", "RUNNING", "FAILED"


def free_space(folder: str) -> int:
    """Bytes that are free on the disk that a folder is on, or would be on."""
    path = Path(folder).absolute()
    return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


class WeightsFetch:
    """One fetch at a time.

    `done` of `total` bytes are there, `total` is 0 until that is known; `stage` and `file` are what is going
    on. `sentence` is why the last one failed.
    """

    def __init__(self) -> None:
        self.state, self.sentence = IDLE, ""
        self.stage = self.file = ""
        self.done = self.total = 0
        self._began: tuple[float, int] | None = None
        self._process: subprocess.Popen | None = None

    @property
    def is_running(self) -> bool:
        return self.state == RUNNING

    @property
    def fraction(self) -> float:
        return self.done / self.total if self.total else 0.0

    @property
    def seconds_left(self) -> float | None:
        """By how fast it was so far; None while that can't be said."""
        if self._began is None or self.stage == CHECKING:
            return None
        began, already = self._began
        passed, came = time.monotonic() - began, self.done - already
        return passed * (self.total - self.done) / came if came > 0 and passed > 2 else None

    def start(self, checkout: str, python: str, folder: str) -> None:
        """Fetch into `folder`; the others are as in `ServerProcess.start`. Raises `ServerError`."""
        if self.is_running:
            return
        words = ["weights", folder, "--progress"]
        self._process = launch(find_checkout(checkout), python, words, subprocess.PIPE, subprocess.PIPE)
        self.state, self.sentence, self.stage, self.file = RUNNING, "", "", ""
        self.done = self.total = 0
        self._began = None
        threading.Thread(
            target=self._follow, args=(self._process,), name="poseanything-weights", daemon=True
        ).start()

    def cancel(self) -> None:
        """End it; what came is kept."""
        process, self._process = self._process, None
        self.state = IDLE
        if process is not None:
            process.terminate()

    def _follow(self, process: subprocess.Popen) -> None:
        """In a thread of its own."""
        assert process.stdout is not None and process.stderr is not None
        complaints: list[str] = []
        reader = threading.Thread(target=complaints.extend, args=(process.stderr,), daemon=True)
        reader.start()
        for line in process.stdout:
            told = Fetched.from_line(line)
            if told is None or process is not self._process:
                continue  # printed for people, or of a fetch that was cancelled
            self.stage, self.file = told.stage, told.file
            self.done, self.total = told.done, told.total
            if self._began is None:
                self._began = time.monotonic(), self.done
        code = process.wait()
        reader.join()
        if process is not self._process:
            return  # cancelled
        self._process = None
        if code == 0:
            self.state = IDLE
        else:
            self.sentence = last_words(map(printable, complaints)) or say(
                "Fetching the weights ended with code {code}; try again.", code=code
            )
            self.state = FAILED
