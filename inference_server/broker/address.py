"""Where the server listens: `tcp://host:port`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from . import ServerError


@dataclass(frozen=True)
class Address:
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises `ServerError`. Port 0 stands for any free one, `*` for all of the machine's addresses."""
        found = re.fullmatch(r"tcp://(?:\[([0-9a-fA-F:.]+)\]|([^\[\]/:]+)):(\d{1,5})", text)
        if not found or int(found[3]) > 65535:
            raise ServerError(f"{text!r} is no address to listen on; give one like tcp://127.0.0.1:47847.")
        host = found[1] or found[2]
        return cls("127.0.0.1" if host == "localhost" else host, int(found[3]))

    def __str__(self):
        return f"tcp://[{self.host}]:{self.port}" if self.is_ipv6 else f"tcp://{self.host}:{self.port}"

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    @property
    def is_local(self) -> bool:
        """Whether it can be reached from this machine alone."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
