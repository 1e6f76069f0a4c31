"""The server as a process of this Blender: started, watched and stopped, its log kept for when it fails."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

from ..buttons import CHOOSE_HOME, OTHER_PORT, SHOW_PREFERENCES, USE_THIS_COMPUTER
from ..errors import UserError
from ..shared.address import Address, AddressError
from ..shared.keys import Token, TokenError, destination, keys_folder
from ..shared.schema import printable
from ..shared.sentences import FOR_PROGRAM, last_words
from ..texts import say
from .listener import find_listener

STOPPED, STARTING, RUNNING, FAILED = "STOPPED", "STARTING", "RUNNING", "FAILED"

_LISTENING = re.compile(r"listening on (tcp://\S+)")
_PATIENCE = 5.0
_PASSING = "server-any-port-"
"""How the log of a server begins that took a free port: the next one's port is another, and so is its log."""
MOST_TRIED, MOST_PORTS = 100, 65536
"""Ports that are looked at for a free one, and how many there are."""
_OLD = 7 * 86400.0
"""Seconds after which a log that nobody writes to is removed."""


class ServerError(UserError):
    """The server can't be reached or started."""


class ServerProcess:
    """One server process that ends with this one, for it ends when its standard input closes."""

    def __init__(self):
        self.state = STOPPED
        self.sentence = ""
        self.address = ""
        self._log: Path | None = None
        self._process: subprocess.Popen | None = None
        self._home = ("", "", False)

    def start_again(self) -> None:
        """Start what ended by itself anew, at the address that it had. Raises `ServerError`."""
        folder, python, finish = self._home
        self.start(folder, python, self.address, finish)

    def start(self, folder: str, python: str, address: str, finish: bool = False) -> None:
        """Start it from `folder`, a checkout of the project; `python` is "" to use the checkout's own
        environment. With `finish` it makes the clips that wait before it ends with this process.

        Returns at once; `state` tells how it goes on. Raises `ServerError`."""
        if self.is_up:
            return
        where, _ = parse_server(address)
        if not where.is_loopback:
            raise ServerError(
                say(
                    "{where} is another computer; start the server there, or choose an address on this one.",
                    where=where,
                ),
                *USE_THIS_COMPUTER,
            )
        home = find_checkout(folder)
        if is_taken(where):
            raise ServerError(_who_has(where.port), *OTHER_PORT)
        words = ["serve", "--address", address, "--exit-with-stdin"]
        if finish:
            words.append("--finish")
        if self._log is None or address != self.address:  # else what ended by itself goes on with its log
            self._log = _new_log(where)
        # A file, which is still there to write to when this process has ended.
        with open(self._log, "wb") as log:
            self._process = launch(home, python, words, log, subprocess.STDOUT)
        self._home = folder, python, finish
        self.state, self.sentence, self.address = STARTING, "", address
        threading.Thread(
            target=self._follow, args=(self._process,), name="poseanything-server", daemon=True
        ).start()

    def restart(self) -> None:
        """End it and start it anew, in a thread of its own; clips that wait are kept."""
        process, self._process = self._process, None
        if process is None:
            return
        self.state = STARTING
        _write_stop(process)
        threading.Thread(
            target=self._replace, args=(process,), name="poseanything-restart", daemon=True
        ).start()

    def _replace(self, process: subprocess.Popen) -> None:
        _reap(process)
        if self.state != STARTING or self._process is not None:
            return  # stopped or started meanwhile
        self.state = STOPPED
        try:
            self.start_again()
        except ServerError as error:
            self.state, self.sentence = FAILED, str(error)

    @property
    def is_up(self) -> bool:
        return self.state in (STARTING, RUNNING)

    def stop(self, wait: bool = False) -> None:
        """Ask it to end, and make it end when it does not within a few seconds. Clips that wait are kept."""
        process = self._process
        if process is None:
            return
        self.state, self._process = STOPPED, None
        _write_stop(process)
        log, self._log = self._log, None
        reaper = threading.Thread(target=_bury, args=(process, log), name="poseanything-reaper", daemon=True)
        reaper.start()
        if wait:
            reaper.join(2 * _PATIENCE)

    def leave(self) -> None:
        """Let it finish what waits, as when this process ends."""
        process = self._process
        if process is None:
            return
        self.state, self._process = STOPPED, None
        _close_stdin(process)

    def log_tail(self, lines: int = 12) -> list[str]:
        """The last lines it printed."""
        try:
            with open(self._log or os.devnull, "rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 200 * lines - 4000))
                text = log.read().decode(errors="replace")
        except OSError:
            return []
        return [printable(line) for line in text.splitlines()[-lines:]]

    def _follow(self, process: subprocess.Popen) -> None:
        """In a thread of its own: notice the start and the end."""
        while process is self._process and self.state == STARTING:
            for line in self.log_tail(200):
                if found := _LISTENING.search(line):
                    self.address = found[1]
                    self.state = RUNNING
            try:
                process.wait(0.02)
                break
            except subprocess.TimeoutExpired:
                continue
        code = process.wait()
        if process is self._process:
            words = last_words(self.log_tail(200)) or say("it printed nothing")
            self.sentence = say("The server ended with code {code}: {words}", code=code, words=words)
            self.state, self._process = FAILED, None


def launch(home: Path, python: str, words: list[str], stdout: IO | int, stderr: int) -> subprocess.Popen:
    """Run one of the server's commands in a process of its own; `python` is "" to use the environment of the
    checkout `home`. Raises `ServerError`."""
    interpreter = python or _interpreter(home)
    # Settings for Blender's own Python, such as where it looks for modules, would mislead another one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        return subprocess.Popen(
            [interpreter, "-u", "-m", "inference_server", *words],
            cwd=home,
            env=environment | {"PYTHONUTF8": "1", FOR_PROGRAM: "1"},
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            encoding="utf-8" if stdout == subprocess.PIPE else None,
            start_new_session=True,  # Ctrl-C in Blender's terminal is not for it
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # on Windows
        )
    except OSError as error:
        raise ServerError(
            say(
                "{interpreter} can't be started: {reason}; choose another Python.",
                interpreter=interpreter,
                reason=error.strerror,
            ),
            *SHOW_PREFERENCES,
        ) from error


def _new_log(address: Address) -> Path:
    """Where a server writes to; what earlier ones left there is removed when it is old."""
    folder = keys_folder().parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for log in folder.glob("server-*.log"):
        with contextlib.suppress(OSError):
            if time.time() - log.stat().st_mtime > _OLD:
                log.unlink()
    if address.port:
        return folder / f"server-{address.port}.log"
    handle, name = tempfile.mkstemp(".log", _PASSING, folder)
    os.close(handle)
    return Path(name)


def _write_stop(process: subprocess.Popen) -> None:
    try:
        if process.stdin:
            process.stdin.write(b"stop\n")
            process.stdin.flush()
    except OSError:
        pass  # it has ended by itself meanwhile


def _close_stdin(process: subprocess.Popen) -> None:
    try:
        if process.stdin:
            process.stdin.close()
    except OSError:
        pass  # it has ended by itself meanwhile


def parse_server(text: str) -> tuple[Address, Token | None]:
    """What a text, a token or an address, says of where the server is. Raises `ServerError`."""
    try:
        return destination(text)
    except (AddressError, TokenError) as error:
        raise ServerError(str(error), *SHOW_PREFERENCES) from None


def find_checkout(folder: str) -> Path:
    """The folder of the project. Raises `ServerError` when it is not one."""
    if not folder:
        raise ServerError(
            "Set the Server Folder in the extension's preferences, or start the server yourself.",
            *CHOOSE_HOME,
        )
    home = Path(folder)
    if not (home / "inference_server").is_dir():
        raise ServerError(
            say(
                "{home} has no folder inference_server; choose the folder of PoseAnything Bridge's checkout.",
                home=home,
            ),
            *CHOOSE_HOME,
        )
    return home


def _interpreter(home: Path) -> str:
    """The environment that `build.py setup` made there; those for another Blender have a suffix in their
    name."""
    name = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    found = [
        path for path in (home / ".venv").glob(f"python3.*/{name}") if "-" not in path.parent.parent.name
    ]
    if not found:
        raise ServerError(
            say("The server is not set up yet; run 'python build.py setup' in {home}.", home=home)
        )
    # The lowest version: the neural engine's packages are there first.
    return str(min(found, key=lambda path: int(path.parent.parent.name.partition(".")[2])))


def is_taken(address: Address) -> bool:
    """Whether something listens at an address of this computer already."""
    if not address.port:
        return False
    with socket.socket(socket.AF_INET6 if address.is_ipv6 else socket.AF_INET) as probe:
        probe.settimeout(0.05)
        return probe.connect_ex((address.host, address.port)) == 0


def _who_has(port: int) -> str:
    listener = find_listener(port)
    if listener is None:
        return say("Port {port} is in use by another program; use another port.", port=port)
    return say(
        "Port {port} is in use by {program} (process {pid}); use another port.",
        port=port,
        program=listener.name,
        pid=listener.pid,
    )


def next_free(address: Address) -> Address:
    """The same computer's next port at which nothing listens. Raises `ServerError`."""
    for port in range(address.port + 1, min(address.port + MOST_TRIED, MOST_PORTS)):
        found = dataclasses.replace(address, port=port)
        if not is_taken(found):
            return found
    raise ServerError(
        say("No port after {port} is free; choose another address.", port=address.port), *SHOW_PREFERENCES
    )


def _bury(process: subprocess.Popen, log: Path | None) -> None:
    """See that a server ends that was told to, and leaves no more than it must."""
    _reap(process)
    if log is not None and log.name.startswith(_PASSING):
        with contextlib.suppress(OSError):
            log.unlink()


def _reap(process: subprocess.Popen) -> None:
    _close_stdin(process)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
