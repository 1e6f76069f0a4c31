"""How a client proves who it is, and knows that the server is the one it means.

Every connection is encrypted by CURVE (https://rfc.zeromq.org/spec/26/): both ends have a key pair. A client
needs the server's public key and a pair of its own that the server has been told of. A token holds these, and
for a server on another computer its address as well: one line of text, to be pasted. On the server's own
computer it lies in a file that only its user can read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .address import Address, AddressError
from .sentences import SentenceError

PREFIX = "poseanything-"
_NO_PART = re.compile(r"[^A-Za-z0-9_-]")
KEY_BYTES = 32
_KEYS = 3 * KEY_BYTES
_CHECKSUM = 4
LOCAL_TOKEN = "this-computer.token"


class TokenError(SentenceError, ValueError):
    """A token can't be used. Its text is one sentence that says why and what to do."""


@dataclass(frozen=True)
class Token:
    """What a client needs to be let in: `address` is "" where the token is for this computer's servers,
    whatever their ports; keys are 32 bytes each.

        token = Token.parse("poseanything-...")
        token.apply_to(socket)
        socket.connect(token.address)
    """

    address: str
    server_key: bytes
    public_key: bytes
    secret_key: bytes = field(repr=False)

    def __str__(self):
        body = self.server_key + self.public_key + self.secret_key + self.address.encode()
        body += zlib.crc32(body).to_bytes(_CHECKSUM, "big")
        return PREFIX + base64.urlsafe_b64encode(body).rstrip(b"=").decode()

    @classmethod
    def parse(cls, text: str) -> Token:
        """Of text that was pasted: spaces, line breaks, quotation marks and invisible characters in it play
        no part, nor do words before it. Raises `TokenError`, whose text shows nothing of it."""
        _, found, data = _NO_PART.sub("", text).partition(PREFIX)
        if not found:
            raise TokenError("This is not a token; one begins with {prefix!r}.", prefix=PREFIX)
        try:
            body = base64.b64decode(data + "=" * (-len(data) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError):
            body = b""
        body, checksum = body[:-_CHECKSUM], body[-_CHECKSUM:]
        if len(body) < _KEYS or zlib.crc32(body).to_bytes(_CHECKSUM, "big") != checksum:
            raise TokenError("The token is not whole; copy all of the line.")
        keys = [body[start : start + KEY_BYTES] for start in range(0, _KEYS, KEY_BYTES)]
        address = body[_KEYS:].decode(errors="replace")
        try:
            return cls(str(Address.parse(address)) if address else "", *keys)
        except AddressError as error:
            raise TokenError("The token is for an address that is none ({error})", error=error) from None

    @property
    def account(self) -> str:
        """The server and the user as one, in hexadecimal digits: jobs go by both."""
        return hashlib.sha256(self.server_key + self.public_key).hexdigest()[:32]

    def apply_to(self, socket: Any) -> None:
        """Set up a ZeroMQ socket, before it is connected."""
        socket.curve_serverkey = self.server_key
        socket.curve_publickey = self.public_key
        socket.curve_secretkey = self.secret_key


def destination(text: str) -> tuple[Address, Token | None]:
    """Where the server is that a token or an address names, and the token. Raises `TokenError` or
    `AddressError`."""
    if text.strip().startswith("tcp:") or PREFIX not in _NO_PART.sub("", text):
        return Address.parse(text.strip()), None
    token = Token.parse(text)
    if not token.address:
        raise TokenError(
            "This token is for its own computer alone; make one with 'poseanything-server invite'."
        )
    return Address.parse(token.address), token


def keys_folder() -> Path:
    """Where this user's keys are."""
    return Path(os.environ.get("POSEANYTHING_KEYS") or Path.home() / ".poseanything" / "keys")


def local_token() -> Token | None:
    """The token for the servers that this user runs on this computer; None before the first has run.

    Raises `TokenError` when others could have read it, or when it is damaged."""
    path = keys_folder() / LOCAL_TOKEN
    try:
        if sys.platform != "win32":
            status = path.stat()
            if status.st_uid != os.getuid() or status.st_mode & 0o077:
                raise TokenError(
                    "{path} can be read by others; make new keys with 'poseanything-server keys revoke "
                    "{key}'.",
                    path=path,
                    key=LOCAL_NAME,
                )
        text = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TokenError(
            "{path} can't be read ({reason}); look whose it is.", path=path, reason=error.strerror
        ) from None
    try:
        return Token.parse(text)
    except TokenError:
        raise TokenError(
            "{path} is damaged; put it back from a backup, or delete it and start the server again.",
            path=path,
        ) from None


LOCAL_NAME = "this-computer"
"""The name of the key that this user's own programs have, among those that a server lets in."""
NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a key may be called."""
