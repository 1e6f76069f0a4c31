"""What was found out about this machine once, so that it need not be found out again."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where it is kept: what the environment variable POSEANYTHING_CACHE names, else a folder in the home."""
    return Path(os.environ.get("POSEANYTHING_CACHE") or Path.home() / ".poseanything" / "cache")


class Remembered:
    """Values by name in a JSON file of the cache folder. Where it can't be read or written there are none."""

    def __init__(self, name: str):
        self._file = cache_folder() / f"{name}.json"

    def get(self, key: str) -> Any | None:
        return self._all().get(key)

    def set(self, key: str, value: Any) -> None:
        growing = self._file.with_suffix(f".{os.getpid()}.part")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self._all() | {key: value}, indent=1)
            growing.write_text(text, encoding="utf-8")
            os.replace(growing, self._file)
        except OSError as error:
            log.warning("%s can't be kept: %s", self._file, error)

    def _all(self) -> dict[str, Any]:
        try:
            values = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}
