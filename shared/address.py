"""Where a server listens: `tcp://HOST:PORT`, and what of that is on this computer."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from .sentences import SentenceError

DEFAULT_PORT = 47847
DEFAULT_ADDRESS = f"tcp://127.0.0.1:{DEFAULT_PORT}"


class AddressError(SentenceError, ValueError):
    """A text is not an address. Its own text is one sentence that says how to write one."""


@dataclass(frozen=True)
class Address:
    """A host and a port, as in `Address.parse("tcp://127.0.0.1:47847")`.

    `host` is a name or an IP address; a server also takes `*`, all addresses of its computer. `port` 0 lets
    the server choose a free one.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises `AddressError`. The name `localhost` becomes 127.0.0.1, so that both sides mean the same."""
        found = re.fullmatch(r"tcp://(?:\[([0-9a-fA-F:.]+)\]|([^\[\]/:\s\0]{1,253})):(\d{1,5})", text)
        if not found or int(found[3]) > 65535:
            raise AddressError(
                "{text!r} is not an address; write it as {usual}.",
                text=_shortened(text),
                usual=DEFAULT_ADDRESS,
            )
        host = found[1] or found[2]
        return cls("127.0.0.1" if host == "localhost" else host, int(found[3]))

    def __str__(self):
        return f"tcp://[{self.host}]:{self.port}" if self.is_ipv6 else f"tcp://{self.host}:{self.port}"

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    @property
    def is_loopback(self) -> bool:
        """Whether only this computer can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_every(self) -> bool:
        """Whether it stands for all addresses of a computer, where a server may listen but is not reached."""
        return self.host in ("*", "0.0.0.0", "::")


def _shortened(text: str, most: int = 40) -> str:
    """Enough to know it by: it may be a token with a letter too many, whose end is secret."""
    return text if len(text) <= most else f"{text[:most]}..."
