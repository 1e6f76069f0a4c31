"""Handlers of Blender's events, added and removed together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import bpy


def add(handlers: Mapping[str, Callable]) -> None:
    """Have functions called at Blender's events; the keys are names in `bpy.app.handlers`."""
    for name, handler in handlers.items():
        getattr(bpy.app.handlers, name).append(handler)


def remove(handlers: Mapping[str, Callable]) -> None:
    """The other way round, of what `add` was given. Raises `ValueError` for what is not there."""
    for name, handler in handlers.items():
        getattr(bpy.app.handlers, name).remove(handler)
