"""Renaming of state-dict keys that works both ways from one table, so that a conversion cannot lose its way back."""

from __future__ import annotations

import re
from collections.abc import Iterable


class KeyMap:
    """Renames keys between our naming and another.

    Each rule is a pair of key prefixes (ours, theirs), whole dotted parts, in which `{}` stands for a number that
    is carried over in order; what follows the prefix is carried over as it is. The first rule that fits wins.
    """

    def __init__(self, rules: Iterable[tuple[str, str]]):
        rules = list(rules)
        self._to_theirs = [(_pattern(ours), theirs) for ours, theirs in rules]
        self._to_ours = [(_pattern(theirs), ours) for ours, theirs in rules]

    def to_theirs(self, key: str) -> str | None:
        """The other naming's word for our `key`, None where the other has none."""
        return _rename(key, self._to_theirs)

    def to_ours(self, key: str) -> str | None:
        """Our word for the other naming's `key`, None where we have none."""
        return _rename(key, self._to_ours)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", r"(\d+)") + r"(?=\.|$)")


def _rename(key: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in rules:
        if match := pattern.match(key):
            return template.format(*match.groups()) + key[match.end() :]
    return None
