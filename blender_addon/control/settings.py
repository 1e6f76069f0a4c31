"""What is exported as control videos, kept with each scene."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, EnumProperty, PointerProperty

from .kinds import KINDS, PRESETS


class PoseAnythingControl(bpy.types.PropertyGroup):
    """A switch for each of `kinds.KINDS`, by its name, and how they are written."""

    __annotations__ = {
        name: BoolProperty(name=label, description=text, default=name in PRESETS["VACE"][1])
        for name, (label, text) in KINDS.items()
    } | {
        "file_format": EnumProperty(
            name="Format",
            description="How they are written; all have the clip's size, frames and frame rate",
            items=(
                ("MP4", "MP4", "A movie each, H.264 at high quality"),
                ("PNG", "PNG", "A folder of pictures each, without loss"),
            ),
        )
    }


def chosen(control: PoseAnythingControl) -> list[str]:
    """The kinds that are on, in their order."""
    return [name for name in KINDS if getattr(control, name)]


def choose(control: PoseAnythingControl, kinds) -> None:
    """Let these kinds be on, and no others."""
    for name in KINDS:
        setattr(control, name, name in kinds)


def preset_of(control: PoseAnythingControl) -> str:
    """The name of the preset that has exactly the kinds that are on, "" where none has."""
    on = set(chosen(control))
    return next((name for name, (_, kinds) in PRESETS.items() if set(kinds) == on), "")


def register() -> None:
    bpy.utils.register_class(PoseAnythingControl)
    bpy.types.Scene.poseanything_control = PointerProperty(type=PoseAnythingControl)


def unregister() -> None:
    del bpy.types.Scene.poseanything_control
    bpy.utils.unregister_class(PoseAnythingControl)
