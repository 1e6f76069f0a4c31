"""A real Blender window for tests, clicked and typed at as an animator does. The environment says how to open
one:

- POSEANYTHING_DESKTOP_BLENDER: the command that opens Blender in a window of 1600 x 1000 pixels that fills
  display; Blender's arguments are put after it.
- POSEANYTHING_DESKTOP_DISPLAY: that display's name, like :1.
- POSEANYTHING_DESKTOP_RUN: what is put before xdotool and import (of ImageMagick) when they run beside that
  Blender, where that is a container or another root; empty where it is neither.
- POSEANYTHING_DESKTOP_TEMPORARY: under which path that Blender sees the system's temporary folder; the same
  by default.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TextIO

import pytest

from tests.server.processes import Output

ROOT = Path(__file__).resolve().parents[2]
BLENDER = shlex.split(os.environ.get("POSEANYTHING_DESKTOP_BLENDER", ""))
DISPLAY = os.environ.get("POSEANYTHING_DESKTOP_DISPLAY", "")
RUN = shlex.split(os.environ.get("POSEANYTHING_DESKTOP_RUN", ""))
HEIGHT = 1000


@cache
def shell() -> tuple[TextIO, Output]:
    """The input of a shell beside that Blender, since starting one takes longer than most commands, and what
    it says. It ends when its input is closed, as it is when the tests end."""
    command = [*RUN, "env", f"DISPLAY={DISPLAY}", "sh"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process.stdin, Output(process.stdout)


def display(*command: str) -> None:
    """Run a command beside that Blender, of those that end."""
    commands, said = shell()
    commands.write(f"{shlex.join(command)} >/dev/null 2>&1; echo $?\n")
    commands.flush()
    assert said.line(seconds=120) == "0\n", f"{shlex.join(command)} failed"


class Desktop:
    def __init__(self, folder: Path):
        self.folder = folder

    def ask(self, code: str):
        """Run code in Blender; gives what it assigns to `answer`."""
        reply = self.folder / "answer.json"
        reply.unlink(missing_ok=True)
        part = self.folder / "ask.part"
        part.write_text(code)
        part.rename(self.folder / "ask.py")
        wait_for(reply.exists, 60)
        answer = json.loads(reply.read_text())
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def jobs(self) -> list[dict]:
        return self.ask("answer = jobs()")

    def press_generate(self, editor: str) -> None:
        """Click the first button of the sidebar's panel."""
        x, top = self.ask(f"answer = sidebar_top({editor!r})")
        display(
            "xdotool", "mousemove", str(int(x)), str(int(HEIGHT - top + 50)), "sleep", "0.3", "click", "1"
        )

    def press(self, x: float, y: float) -> None:
        """Move there as a hand does, and click; y from the top."""
        move = ("mousemove", "--sync", str(int(x)), str(int(y)), "sleep", "0.6", "click", "1", "sleep", "0.3")
        display("xdotool", *move)

    def keys(self, *keys: str) -> None:
        """Type with the pointer over the 3D view."""
        display("xdotool", "mousemove", "500", "300", "sleep", "0.3", "key", "--delay", "300", *keys)

    def photograph(self, name: str) -> Path:
        display("import", "-window", "root", str(inside(self.folder / name)))
        return self.folder / name


def inside(path: Path) -> Path:
    """Where the window's Blender finds a file of the temporary folder."""
    temporary = Path(tempfile.gettempdir())
    seen = os.environ.get("POSEANYTHING_DESKTOP_TEMPORARY", temporary)
    return Path(seen, path.relative_to(temporary))


def wait_for(condition, seconds: float):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.01)
    return value


def packed_extension() -> Path:
    """The extension's zip; packed now unless the environment names it."""
    if "POSEANYTHING_EXTENSION" in os.environ:
        return Path(os.environ["POSEANYTHING_EXTENSION"])
    packed = subprocess.run(
        [sys.executable, ROOT / "build.py", "extension"],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    return Path(packed.stdout.strip().splitlines()[-1])


def skip_without_window() -> None:
    if not BLENDER or not DISPLAY:
        pytest.skip("POSEANYTHING_DESKTOP_BLENDER and POSEANYTHING_DESKTOP_DISPLAY name no window to use")


OPENED = "opened.txt"
"""What Blender has had the desktop open, a path or an address a line."""


def put_opener(folder: Path) -> Path:
    """Where a program lies that stands for the desktop's own: it notes what it is to open."""
    opener = folder / "bin" / "xdg-open"
    opener.parent.mkdir()
    opener.write_text(f'#!/bin/sh\necho "$1" >> {shlex.quote(str(inside(folder / OPENED)))}\n')
    opener.chmod(0o755)
    return opener.parent


@contextmanager
def open_window(folder: Path, token: str, *how: str, **environ: str) -> Iterator[Desktop]:
    """Blender with a fresh profile in a folder, the extension installed by Blender's own installer.

    how: what `drive.py` is told beside the token. environ: variables for Blender.
    """
    seen = inside(folder)
    (folder / "profile").mkdir()
    path = os.pathsep.join([str(inside(put_opener(folder))), os.environ["PATH"]])
    (folder / "extension.zip").write_bytes(packed_extension().read_bytes())
    (folder / "drive.py").write_text(Path(__file__).with_name("drive.py").read_text())
    arguments = [f"{seen}/drive.py", "--", str(seen), f"{seen}/extension.zip", token, *how]
    blender = subprocess.Popen(
        [*BLENDER, "--python", *arguments],
        env=os.environ | {"BLENDER_USER_RESOURCES": f"{seen}/profile", "PATH": path, **environ},
        stdout=open(folder / "blender.log", "w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_for(lambda: (folder / "ready").exists() or blender.poll() is not None, 180)
        assert blender.poll() is None, (folder / "blender.log").read_text()
        window = Desktop(folder)
        window.process = blender
        yield window
    finally:
        if blender.poll() is None:
            os.killpg(blender.pid, signal.SIGTERM)
            blender.wait(30)
