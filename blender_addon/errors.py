"""What the user has to put right before a clip can be exported."""


class ExportError(Exception):
    """Its text is one sentence that says what is wrong and what to do.

    button: what of a `request.finding.Finding` follows its sentence, where a button helps: the operator, its
    label and its properties.
    """

    def __init__(self, sentence: str, *button):
        super().__init__(sentence)
        self.button = button


class ClipError(ExportError):
    """Of what only an export can find: the panel tells it until the next one."""


class ExportCancelled(ExportError):
    """The user ended what was being exported; nothing has to be put right."""
