"""Panels in the sidebars of the 3D view and the sequencer, and a word in the status bar."""

from . import (
    alignment,
    camera,
    key_poses,
    limbs,
    live,
    menus,
    overlay,
    panels,
    picking,
    pictures,
    preferences,
    presets,
    refresh,
    status_bar,
    takes,
    textures,
    video,
)

_MODULES = (
    pictures,
    textures,
    live,  # beneath what is drawn over it
    limbs,
    overlay,
    alignment,
    camera,
    key_poses,
    video,
    picking,
    takes,
    presets,
    panels,
    menus,
    preferences,
    status_bar,
    refresh,
)


def register() -> None:
    for module in _MODULES:
        module.register()


def unregister() -> None:
    for module in reversed(_MODULES):
        module.unregister()
