"""Left and right: which limb is another's mirror image, by the names that riggers give."""

from __future__ import annotations

import re
from collections.abc import Sequence

from shared.pose import Limb

_SIDES = (
    re.compile(r"(?P<side>left|right)", re.IGNORECASE),
    re.compile(r"(?:^|(?<=[._\- ]))(?P<side>[lr])(?=[._\- ]|$)", re.IGNORECASE),
    re.compile(r"(?<=[a-z0-9])(?P<side>[LR])(?=$|[A-Z._\- ])"),
)
_NUMBER = re.compile(r"[._](\d{2,})$")
"""A number that an importer has appended, which differs from side to side."""


def find_mirrors(limbs: Sequence[Limb]) -> dict[int, int]:
    """Limb index -> index of the limb on the other side of the same subject, for limbs that have exactly
    one."""
    found: dict[tuple, list[tuple[str, int]]] = {}
    for index, limb in enumerate(limbs):
        stem = _NUMBER.sub("", limb.name)
        for pattern in _SIDES:
            match = pattern.search(stem)
            if match:
                key = stem[: match.start("side")] + "*" + stem[match.end("side") :]
                found.setdefault((limb.subject, key), []).append((match["side"][0].lower(), index))
                break
    mirrors = {}
    for sides in found.values():
        if len(sides) == 2 and sides[0][0] != sides[1][0]:
            (_, a), (_, b) = sides
            mirrors[a], mirrors[b] = b, a
    return mirrors
