"""Where the stages' weights are, and what they run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..poseanything.checkpoints import default_folder
from .stages import XPoseError

FOLDER = "xpose"
"""Inside the weights' folder, so that none of it is taken for a part of the video model."""


def weights_of(name: str) -> Path:
    """The folder of a model's weights. Raises `XPoseError` where it is not there."""
    path = default_folder() / FOLDER / name
    if not path.is_dir() or not any(path.iterdir()):
        raise XPoseError(f"{path} has no weights; get them with: python build.py weights xpose")
    return path


def pick_device(name: str = "") -> str:
    """The device of a name, or the card if there is one."""
    import torch

    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def load_model(kind: Any, path: Path, **options: Any) -> Any:
    """What transformers' `from_pretrained` reads from a folder, nothing fetched and no code of it run; a
    model is ready to be asked. Raises `XPoseError` where it can't be read."""
    try:
        found = kind.from_pretrained(path, local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise XPoseError(
            f"{path} can't be read ({reason}); get it again with: python build.py weights xpose"
        ) from error
    return found.eval() if hasattr(found, "eval") else found
