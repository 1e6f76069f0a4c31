"""The keys of this user's servers, and of those that they let in.

A folder that only its user can enter holds the servers' key pair, a public key for each who was invited, and
the token of this user's own programs. All servers of a user share it. A key that is taken away is refused
from then on, by servers that run as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import zmq.auth
from zmq.utils import z85

from shared.keys import LOCAL_NAME, LOCAL_TOKEN, NAMES, Token
from shared.sentences import say

from . import ServerError

SERVER = "server.key_secret"
HALF = "half-written-"
"""How the name of what is not whole yet begins."""
_LONG = 3600.0
"""Seconds after which nobody is at work on it any more."""
_UNSETTLED, _PAUSE = 2 * 10**9, 10**8
"""Nanoseconds during which a folder may change again without its time telling so, and between two looks at it
meanwhile."""


@dataclass(frozen=True)
class Key:
    """A public key that is let in. `user` is how ZeroMQ names whoever has proved to have it: its Z85 text."""

    name: str
    user: bytes
    invited: datetime.datetime


class KeyRing:
    """Makes what is missing of a user's keys.

    Args:
        folder: made when missing, for this user alone.

    Raises `ServerError` when keys can't be kept there.
    """

    def __init__(self, folder: Path):
        self.folder, self._clients = folder, folder / "clients"
        self._known: dict[bytes, str] = {}
        self._files: dict[str, tuple[tuple[int, int], Key]] = {}
        self._read = 0, 0
        try:
            self._clients.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.name == "posix":
                folder.chmod(0o700)
            _remove_leavings(folder, self._clients)
            if not (folder / SERVER).exists():
                self._make_pair(folder / SERVER)
            self.server_key, self.server_secret = self._read_pair(folder / SERVER)
            self._keep_local_token()
        except OSError as error:
            raise ServerError(
                "Keys can't be kept in {folder} ({error}); have POSEANYTHING_KEYS name another folder.",
                folder=folder,
                error=error,
            ) from error

    def invite(self, name: str, address: str) -> Token:
        """A new key pair under a name that is free; only its public half is kept. Raises `ServerError`."""
        if not NAMES.fullmatch(name):
            raise ServerError(
                "{name!r} is not a name for a key; use up to 64 letters, digits, '.', '_', '-'.", name=name
            )
        public, secret = zmq.curve_keypair()
        token = Token(address, z85.decode(self.server_key), z85.decode(public), z85.decode(secret))
        path = self._clients / f"{name}.key"
        try:
            # Whole before it has its name: a server that runs may look at any time.
            _place(path, _public_key(name, public))
        except FileExistsError:
            raise ServerError(
                "{name!r} has been invited already; choose another name, or revoke that key first.",
                name=name,
            ) from None
        except OSError as error:
            raise ServerError(
                "The key can't be kept in {folder} ({reason}).", folder=path.parent, reason=error.strerror
            ) from error
        return token

    def keys(self) -> list[Key]:
        """All that are let in, in the order in which they were invited. Raises `OSError`."""
        files = {}
        for path in self._clients.glob("*.key"):
            try:
                status = path.stat()
                version = status.st_mtime_ns, status.st_ino
                if (known := self._files.get(path.stem)) is not None and known[0] == version:
                    files[path.stem] = known
                    continue
                user, _ = zmq.auth.load_certificate(path)
            except (FileNotFoundError, IsADirectoryError, PermissionError, ValueError):
                continue  # taken away meanwhile, or not a key
            invited = datetime.datetime.fromtimestamp(status.st_mtime)
            files[path.stem] = version, Key(path.stem, user, invited)
        self._files = files
        return sorted((key for _, key in files.values()), key=lambda key: (key.invited, key.name))

    def revoke(self, name: str) -> None:
        """Let a key in no more; that of this computer's own user is replaced. Raises `ServerError`."""
        path = self._clients / f"{name}.key"
        if path.parent != self._clients or not path.exists():
            names = ", ".join(key.name for key in self.keys())
            raise ServerError(
                "There is no key named {name!r}; there are {names}.", name=name, names=names or "none"
            )
        try:
            if name == LOCAL_NAME:
                (self.folder / LOCAL_TOKEN).unlink(missing_ok=True)
                self._keep_local_token()
            else:
                path.unlink()
        except OSError as error:
            raise ServerError(
                "The key {name!r} can't be removed ({reason}).", name=name, reason=error.strerror
            ) from error

    def name_of(self, user: bytes) -> str | None:
        """Who it is, None for a key that is not let in (any more). While the folder can't be read, what was
        read last holds."""
        with contextlib.suppress(OSError):
            changed, now = self._clients.stat().st_mtime_ns, time.time_ns()
            before, read = self._read
            if changed != before or (changed + _UNSETTLED > read and now > read + _PAUSE):
                self._known = {key.user: key.name for key in self.keys()}
                self._read = changed, now
        return self._known.get(user)

    def callback(self, domain: str, user: bytes) -> bool:
        """What `zmq.auth` asks for everybody who has proved to have a key."""
        return self.name_of(user) is not None

    def _keep_local_token(self) -> None:
        """See that this user's own programs have a token for these servers, and that its key is let in: also
        where one of the files was deleted, or put back from elsewhere."""
        path, key = self.folder / LOCAL_TOKEN, self._clients / f"{LOCAL_NAME}.key"
        server_key = z85.decode(self.server_key)
        public, secret = map(z85.decode, zmq.curve_keypair())
        with contextlib.suppress(FileExistsError):
            _place(path, f"{Token('', server_key, public, secret)}\n")
        try:
            token = Token.parse(path.read_text(encoding="ascii"))
        except ValueError as error:
            raise _damaged(path, say("this computer's own jobs are lost with it")) from error
        if token.server_key != server_key:
            _place(path, f"{dataclasses.replace(token, server_key=server_key)}\n", over=True)
        let_in = _public_key(LOCAL_NAME, z85.encode(token.public_key))
        if not key.exists() or key.read_text(encoding="utf-8", errors="replace") != let_in:
            _place(key, let_in, over=True)

    def _make_pair(self, path: Path) -> None:
        with tempfile.TemporaryDirectory(prefix=HALF, dir=self.folder) as folder:
            _, secret = zmq.auth.create_certificates(folder, "server")
            with contextlib.suppress(FileExistsError):  # another server did it at the same time
                _place(path, Path(secret).read_text(encoding="utf-8"))

    def _read_pair(self, path: Path) -> tuple[bytes, bytes]:
        """Raises `ServerError`."""
        try:
            public, secret = zmq.auth.load_certificate(path)
            if secret is None or zmq.curve_public(secret) != public:
                raise ValueError("its halves are no pair")
        except (ValueError, zmq.ZMQError) as error:
            raise _damaged(path, say("everybody has to be invited again")) from error
        return public, secret


def _damaged(path: Path, price: str) -> ServerError:
    return ServerError(
        "{path} is damaged; put it back from a backup, or delete it ({price}).", path=path, price=price
    )


def _public_key(name: str, key: bytes) -> str:
    """A file of the kind that `zmq.auth` reads."""
    return f'metadata\n    name = "{name}"\ncurve\n    public-key = "{key.decode()}"\n'


def _remove_leavings(*folders: Path) -> None:
    """Keys that were half written when their program was killed."""
    for path in (path for folder in folders for path in folder.glob(f"{HALF}*")):
        with contextlib.suppress(OSError):  # another program removes it too
            if time.time() - path.stat().st_mtime > _LONG:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _place(path: Path, text: str, over: bool = False) -> None:
    """Write a file for this user alone that is whole from its first moment, if need be `over` another. Raises
    `FileExistsError`."""
    handle, temporary = tempfile.mkstemp(prefix=HALF, dir=path.parent)  # for this user alone
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        (os.replace if over else os.link)(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
