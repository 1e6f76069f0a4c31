"""What is wrong with a checkpoint, in one sentence that says what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shared.sentences import SentenceError, say

SHOWN_NAMES = 4


class CheckpointError(SentenceError):
    """A checkpoint can't be used. Its text is one sentence for the user: what is wrong, and what to do."""


class WeightsMissing(CheckpointError):
    """A folder lacks components of the model, `missing`: names of `folder.LOOKED_FOR`."""

    def __init__(self, text: str, missing: Iterable[str], **values: Any):
        super().__init__(text, **values)
        self.missing = frozenset(missing)


def name_some(names: Iterable[str]) -> str:
    """The first few of `names`, sorted, and how many more there are: "a, b, c, d and 21 more"."""
    names = sorted(names)
    shown, more = ", ".join(names[:SHOWN_NAMES]), len(names) - SHOWN_NAMES
    return shown if more <= 0 else say("{names} and {count} more", names=shown, count=more)


def require_same_names(found: Iterable[str], wanted: Iterable[str], where: str) -> None:
    """Raise `CheckpointError` naming the tensors that `where` lacks, and those that have no place in the
    model."""
    found, wanted = set(found), set(wanted)
    missing, unknown = wanted - found, found - wanted
    if not missing and not unknown:
        return
    if not unknown:
        template = (
            "{where} lacks {lacking} tensor(s) of the model ({missing}); get the file again, or one made for "
            "this model."
        )
    elif not missing:
        template = (
            "{where} has {left_over} tensor(s) the model has no place for ({unknown}); get the file again, "
            "or one made for this model."
        )
    else:
        template = (
            "{where} lacks {lacking} tensor(s) of the model ({missing}) and has {left_over} tensor(s) the "
            "model has no place for ({unknown}); get the file again, or one made for this model."
        )
    raise CheckpointError(
        template,
        where=where,
        lacking=len(missing),
        missing=name_some(missing),
        left_over=len(unknown),
        unknown=name_some(unknown),
    )
