"""Where the stages' weights are, and what they run on."""

from __future__ import annotations

from pathlib import Path

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
