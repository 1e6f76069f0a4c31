"""What the extension says, ready to be said in the user's language.

A text is whole: what varies in it stands in named places, so that another language can order them otherwise.

    say("No server answers at {address}; start it in the Server panel.", address=address)

It is English wherever it goes, and keeps what it was made of for `translation.shown`. It knows nothing of
bpy.
"""

from __future__ import annotations

from typing import Any


class Said(str):
    """A text of a `template` in the form of `str.format`, and its `values` by name."""

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, values: dict[str, Any]) -> Said:
        self = super().__new__(cls, template.format(**values))
        self.template, self.values = template, values
        return self

    def __str__(self) -> str:
        return self  # str() of an exception with this text, too, keeps what it was made of

    def __getnewargs__(self) -> tuple[str, dict[str, Any]]:
        return self.template, self.values


class Headline(str):
    """A sentence without its full stop, before a button; `sentence` is the whole."""

    sentence: str

    def __new__(cls, sentence: str) -> Headline:
        self = super().__new__(cls, sentence.rstrip("."))
        self.sentence = sentence
        return self

    def __str__(self) -> str:
        return self  # as with `Said`


def say(template: str, /, **values: Any) -> Said:
    """A text with values in its places. Those that `say` made are translated together with it."""
    return Said(template, values)
