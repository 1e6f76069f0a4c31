"""Where takes are written."""

from __future__ import annotations

import os
from pathlib import Path

import bpy

from .. import preferences
from ..buttons import CHOOSE_FOLDER
from ..errors import ExportError


def output_folder(context, settings) -> Path:
    """The folder that takes go to; beside a file that is not saved yet there is none, so that takes go to the
    extension's own. Raises `ExportError`."""
    folder = settings.output_folder or preferences.get(context).output_folder
    if folder.startswith("//") and not bpy.data.is_saved:
        package = __package__.rpartition(".")[0]
        return Path(bpy.utils.extension_path_user(package, path="takes", create=True))
    if not folder:
        raise ExportError("Choose an output folder.", *CHOOSE_FOLDER)
    # Links and mapped drives stay as the user wrote them, so that a path relative to the file stays one.
    return Path(os.path.abspath(bpy.path.abspath(folder)))
