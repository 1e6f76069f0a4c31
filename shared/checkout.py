"""Where this project's checkout is on this computer, so that Blender finds the server in it by itself."""

from __future__ import annotations

from pathlib import Path

from .keys import keys_folder


def _note() -> Path:
    """Beside the keys: both are this user's on this computer."""
    return keys_folder().parent / "checkout"


def remember_checkout(folder: Path) -> None:
    """Note a checkout, in place of the one that was noted before; where nothing can be written, none is."""
    try:
        _note().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _note().write_text(str(folder), encoding="utf-8")
    except OSError:
        pass  # the user can still say where it is


def remembered_checkout() -> str:
    """The folder that was noted, "" where none was or it holds no server any more."""
    try:
        folder = Path(_note().read_text(encoding="utf-8"))
        return str(folder) if (folder / "inference_server").is_dir() else ""
    except (OSError, ValueError):
        return ""
