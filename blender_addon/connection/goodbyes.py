"""Jobs that are over here and whose server has yet to confirm that it knows, so that none goes on unwanted.

They are kept in the user's own folder and not with the takes, which can be deleted before the server answers:
any Blender of the user's tells it. Each has a file of its own, so that two Blenders do not get in each
other's way.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path

from ..shared.keys import keys_folder
from ..shared.messages import Cancel, Received

log = logging.getLogger(__name__)


class Goodbyes:
    """Those to the server of one account (see `Token.account`)."""

    def __init__(self, account: str):
        self._folder = _root() / _name(account)

    def __contains__(self, job: str) -> bool:
        return (self._folder / _name(job)).exists()

    def jobs(self) -> list[str]:
        """All of them."""
        found = []
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    found.append(path.read_text(encoding="utf-8"))
        return list(filter(None, found))  # an empty one was cut off by a power failure

    def add(self, job: str) -> None:
        """Keep one; where that is not possible it is told by this Blender or by none."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self._folder / _name(job)).write_text(job, encoding="utf-8")
        except OSError as error:
            log.warning("That a job is over can't be kept: %s", error)

    def remove(self, job: str) -> None:
        """The server has confirmed one, or the job goes on after all."""
        with contextlib.suppress(OSError):
            (self._folder / _name(job)).unlink(missing_ok=True)


@dataclass
class _Goodbye:
    message: Cancel | Received
    told: bool = False
    """Over this connection."""


class Unconfirmed:
    """The goodbyes of one client: told again over every connection until the server confirms them.

    send: sends a message; false when it can't be sent for now.
    """

    def __init__(self, send: Callable[[object], bool]):
        self._send = send
        self._goodbyes: dict[str, _Goodbye] = {}
        self._kept: Goodbyes | None = None

    def __bool__(self) -> bool:
        return bool(self._goodbyes)

    def keep(self, account: str, unless: Container[str]) -> None:
        """From now on keep them on the disk, as those to the server of an account, and tell what is kept
        there already, `unless` the job goes on here."""
        self._kept = Goodbyes(account)
        for job in self._kept.jobs():
            if job not in unless:
                self._goodbyes.setdefault(job, _Goodbye(Cancel(job=job)))

    def add(self, message: Cancel | Received) -> None:
        """A job is over here."""
        if message.job not in self._goodbyes:
            self._goodbyes[message.job] = _Goodbye(message)
            if self._kept is not None:
                self._kept.add(message.job)
        self.send()

    def drop(self, job: str) -> None:
        """The server has confirmed it, or the job goes on after all."""
        if self._goodbyes.pop(job, None) is not None and self._kept is not None:
            self._kept.remove(job)

    def send(self) -> None:
        """Tell what has not been told over this connection."""
        for goodbye in self._goodbyes.values():
            goodbye.told = goodbye.told or self._send(goodbye.message)

    def interrupt(self) -> None:
        """The connection is gone: what was told may not have arrived."""
        for goodbye in self._goodbyes.values():
            goodbye.told = False


def any_waiting() -> bool:
    """Whether any server has something to confirm."""
    return any(_root().glob("*/*"))


def _root() -> Path:
    return keys_folder().parent / "goodbyes"


def _name(text: str) -> str:
    """A file's name that no text leads out of its folder."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
