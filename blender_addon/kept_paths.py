"""Relative paths that the extension keeps in a file, when that is saved in another folder: Blender makes only
its own follow."""

from __future__ import annotations

import os
from collections.abc import Iterator

import bpy
from bpy.app.handlers import persistent

from . import handlers

_before: list[tuple[bpy.types.PropertyGroup, str, str]] = []
"""What was changed for a file that is being saved: whose property, which one, and what it was."""


def _paths() -> Iterator[tuple[bpy.types.PropertyGroup, str]]:
    for scene in bpy.data.scenes:
        yield scene.poseanything, "first_frame_path"
        for item in scene.poseanything_takes.items:
            yield item, "folder"


@persistent
def _follow(path: str = "", *_) -> None:
    """Before a file is saved at `path`."""
    _before.clear()
    here, there = os.path.dirname(bpy.data.filepath), os.path.dirname(path)
    if not bpy.data.filepath or not path or here == there:
        return
    for owner, name in _paths():
        kept = getattr(owner, name)
        if kept.startswith("//"):
            _before.append((owner, name, kept))
            setattr(owner, name, _relative(bpy.path.abspath(kept), there))


def _relative(path: str, folder: str) -> str:
    """A path as seen from a folder, with the separator that it ends with."""
    try:
        seen = bpy.path.relpath(path, start=folder)
    except ValueError:  # on another drive
        return path
    return seen.rstrip("/\\") + "/" if path.endswith(("/", "\\")) else seen


@persistent
def _stay(path: str = "", *_) -> None:
    """After a copy was saved, or nothing was: what is open stays where it was."""
    if os.path.normpath(bpy.data.filepath) != os.path.normpath(path):
        for owner, name, kept in _before:
            setattr(owner, name, kept)
    _before.clear()


_HANDLERS = {"save_pre": _follow, "save_post": _stay, "save_post_fail": _stay}


def register() -> None:
    handlers.add(_HANDLERS)


def unregister() -> None:
    handlers.remove(_HANDLERS)
