"""Renaming of state-dict keys that works both ways from one table, so that a conversion cannot lose its way
back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .errors import CheckpointError, name_some


class KeyMap:
    """Renames keys between our naming and another.

    Each rule is a pair of key prefixes (ours, theirs), whole dotted parts, in which `{}` stands for a number
    that is carried over in order; what follows the prefix is carried over as it is. The first rule that fits
    wins.
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

    def all_to_theirs(self, keys: Iterable[str], where: str) -> dict[str, str]:
        """The other naming's words for all our `keys`, each with the key it stands for.

        Raises `CheckpointError`, speaking of `where`, for keys the other naming has no word for.
        """
        return _rename_all(keys, self.to_theirs, where)

    def all_to_ours(self, keys: Iterable[str], where: str) -> dict[str, str]:
        """Our words for all the other naming's `keys`, each with the key it stands for.

        Raises `CheckpointError`, speaking of `where`, for keys we have no word for.
        """
        return _rename_all(keys, self.to_ours, where)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", r"(\d+)") + r"(?=\.|$)")


def _rename(key: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in rules:
        if match := pattern.match(key):
            return template.format(*match.groups()) + key[match.end() :]
    return None


def _rename_all(keys: Iterable[str], rename: Callable[[str], str | None], where: str) -> dict[str, str]:
    renamed: dict[str, str] = {}
    unknown = []
    for key in keys:
        new = rename(key)
        if new is None:
            unknown.append(key)
        else:
            renamed[new] = key
    if unknown:
        raise CheckpointError(
            "{where} has {count} tensor(s) this format doesn't know ({unknown});"
            " get the file again, or one made for this model.",
            where=where,
            count=len(unknown),
            unknown=name_some(unknown),
        )
    return renamed
