"""What the user has to put right before a clip can be exported."""


class ExportError(Exception):
    """Its text is one sentence that says what is wrong and what to do."""


class ExportCancelled(ExportError):
    """The user ended what was being exported; nothing has to be put right."""
