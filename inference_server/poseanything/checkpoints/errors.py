"""What is wrong with a checkpoint, in one sentence that says what to do about it."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN_NAMES = 4


class CheckpointError(Exception):
    """A checkpoint can't be used. Its text is one sentence for the user: what is wrong, and what to do."""


class WeightsMissing(CheckpointError):
    """A folder lacks components of the model, `missing`: names of `folder.LOOKED_FOR`."""

    def __init__(self, message: str, missing: Iterable[str]):
        super().__init__(message)
        self.missing = frozenset(missing)


def name_some(names: Iterable[str]) -> str:
    """The first few of `names`, sorted, and how many more there are: "a, b, c, d and 21 more"."""
    names = sorted(names)
    shown = ", ".join(names[:SHOWN_NAMES])
    return shown if len(names) <= SHOWN_NAMES else f"{shown} and {len(names) - SHOWN_NAMES} more"


def require_same_names(found: Iterable[str], wanted: Iterable[str], where: str) -> None:
    """Raise `CheckpointError` naming the tensors that `where` lacks, and those that have no place in the
    model."""
    found, wanted = set(found), set(wanted)
    missing, unknown = wanted - found, found - wanted
    complaints = []
    if missing:
        complaints.append(f"lacks {len(missing)} tensor(s) of the model ({name_some(missing)})")
    if unknown:
        complaints.append(f"has {len(unknown)} tensor(s) the model has no place for ({name_some(unknown)})")
    if complaints:
        raise CheckpointError(
            f"{where} {' and '.join(complaints)}; get the file again, or one made for this model."
        )
