"""What the user has to put right before a clip can be made."""

from .shared.sentences import SentenceError


class UserError(SentenceError):
    """Its text is one sentence that says what is wrong and what to do.

    button: one of `buttons` where one helps.
    """

    def __init__(self, sentence: str, *button):
        super().__init__(sentence)
        self.button = button


class ExportError(UserError):
    """A clip can't be exported."""


class ExportCancelled(ExportError):
    """The user ended what was being exported; nothing has to be put right."""
