"""What the extension says, ready to be said in the user's language.

A text is whole: what varies in it stands in named places, so that another language can order them otherwise.

    say("No server answers at {address}; start it in the Server panel.", address=address)

It is English wherever it goes, and keeps what it was made of for `translation.shown`. It knows nothing of
bpy.
"""

from __future__ import annotations

from ..shared.sentences import Sentence, say

__all__ = ["Headline", "Sentence", "say"]


class Headline(str):
    """A sentence without its full stop, before a button; `sentence` is the whole."""

    sentence: str

    def __new__(cls, sentence: str) -> Headline:
        self = super().__new__(cls, sentence.rstrip("."))
        self.sentence = sentence
        return self

    def __str__(self) -> str:
        return self  # as with `Sentence`
