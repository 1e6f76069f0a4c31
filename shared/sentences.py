"""What is said to people: whole texts whose varying parts stand in named places, to be translated as a whole.

    say("There is no engine named {name}; choose one of {names}.", name=name, names=", ".join(names))

The text is English wherever it goes. Who shows it in another language looks up the template, as with gettext,
and puts the values in its places.
"""

from __future__ import annotations

import json
import math
import numbers
import os
import re
import string
import sys
from collections.abc import Iterable
from typing import Any

_FORMAT = re.compile(r"((\.[0-9])?[fg%])?")
"""Formats of numbers that a template of another program may ask for: none makes a short value long."""
_DEEPEST = 8
"""Sentences within one another."""
_LONGEST = 300
"""Characters that are kept of another program's last line."""
FOR_PROGRAM = "POSEANYTHING_FOR_PROGRAM"
"""The variable of the environment by which a program that runs a command asks for last words as a line."""


class Sentence(str):
    """A text of a `template` in the form of `str.format`, and its `values` by name; those that are sentences
    themselves are translated with it."""

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, values: dict[str, Any]) -> Sentence:
        self = super().__new__(cls, template.format(**values))
        self.template, self.values = template, values
        return self

    def __str__(self) -> str:
        return self  # str() of an exception with this text, too, keeps what it was made of

    def __reduce__(self) -> tuple[type[Sentence], tuple[str, dict[str, Any]]]:
        return Sentence, (self.template, self.values)


def say(template: str, /, **values: Any) -> Sentence:
    """A text with values in its places. The value of an error is its text."""
    said = {name: str(v) if isinstance(v, BaseException) else v for name, v in values.items()}
    return Sentence(template, said)


class SentenceError(Exception):
    """An error that is told to people, made of what `say` takes, or of a text that is whole already. Its text
    is a `Sentence`, which is translated also within another.

    raise MessageError("{name} must be a number.", name=name)
    """

    def __init__(self, text: str, /, **values: Any):
        super().__init__(say(text, **values) if values else as_value(text))


def as_value(text: str) -> Sentence:
    """A text without places, such as a label, as a value that is translated with the sentence around it."""
    if isinstance(text, Sentence):
        return text
    return Sentence(text.replace("{", "{{").replace("}", "}}"), {})


def one_after_another(*texts: str) -> str:
    """Several sentences as one text; each is translated by itself."""
    if len(texts) < 2:
        return texts[0] if texts else ""
    values = {f"sentence_{number}": as_value(text) for number, text in enumerate(texts)}
    return Sentence(" ".join(f"{{{name}}}" for name in values), values)


def take_apart(sentence: Sentence) -> list:
    """Its template and its values, as msgpack and JSON can carry them."""
    return [sentence.template, {name: _portable(value) for name, value in sentence.values.items()}]


def put_together(parts: Any, text: str) -> str:
    """The sentence that was taken apart into `parts`, of which nobody vouches for. If they do not make up
    `text`, or are not what `take_apart` gives, that is returned as it is."""
    try:
        sentence = _put_together(parts, _DEEPEST)
    except (TypeError, ValueError, LookupError, OverflowError):
        return text
    return sentence if sentence == text else text


def complain(sentence: object) -> None:
    """Say on standard error why a command ends: for people, and below that as a line of JSON where a program
    that runs it asks for one."""
    text = as_value(str(sentence))
    print(text, file=sys.stderr)
    if FOR_PROGRAM in os.environ:
        print(json.dumps({"text": text, "sentence": take_apart(text)}), file=sys.stderr)


def last_words(lines: Iterable[str]) -> str:
    """What a command said last, a `Sentence` where it is one; "" where it said nothing."""
    last = next((line.strip() for line in reversed([*lines]) if line.strip()), "")
    try:
        said = json.loads(last)
        return put_together(said["sentence"], said["text"])
    except (ValueError, TypeError, LookupError):
        return last[:_LONGEST]  # of a program that knows no sentences


def _put_together(parts: Any, depth: int) -> Sentence:
    """Each value is used once, so that the text is not longer than `parts`. Raises `TypeError`, `ValueError`,
    `LookupError` or `OverflowError`."""
    template, values = parts
    if not depth or not isinstance(template, str) or not isinstance(values, dict):
        raise ValueError("it is no sentence")
    parsed = string.Formatter().parse(template)
    places = [(name, form or "", conversion) for _, name, form, conversion in parsed if name is not None]
    made: dict[str, Any] = {}
    for name, form, conversion in places:
        if not name.isidentifier() or conversion not in (None, "r") or not _FORMAT.fullmatch(form):
            raise ValueError("it has a place that is more than a name and a number's format")
        value = values[name]
        if name in made or not isinstance(value, (str, int, float, list)):
            raise ValueError("a value is used twice, or is neither text nor a number")
        made[name] = _put_together(value, depth - 1) if isinstance(value, list) else value
    return Sentence(template, made)


def _portable(value: Any) -> Any:
    if isinstance(value, Sentence):
        return take_apart(value)
    if isinstance(value, numbers.Integral):
        whole = int(value)
        return whole if -(2**63) <= whole < 2**63 else str(whole)
    if isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    return str(value)
