"""How far weights that are fetched are, as lines that the server's command prints and Blender reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

FETCHING, CHECKING = "fetching", "checking"
"""The stages: a file comes, and is compared with its checksum."""


@dataclass(frozen=True)
class Fetched:
    """The stage, the file that it is at, and how many bytes of how many are there of all files."""

    stage: str
    file: str
    done: int
    total: int

    def to_line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Fetched | None:
        """None for a line that is printed for people."""
        try:
            return cls(**json.loads(line))
        except (ValueError, TypeError):
            return None
