"""German."""

TEXTS: dict[str, str] = {}
