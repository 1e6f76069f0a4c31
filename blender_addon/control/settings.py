"""What is exported as control videos, kept with each scene."""

from __future__ import annotations

import bpy
from bpy.props import EnumProperty, PointerProperty

from .kinds import KINDS, PRESETS

_ITEMS = tuple((name, label, text, 1 << k) for k, (name, (label, text)) in enumerate(KINDS.items()))


class PoseAnythingControl(bpy.types.PropertyGroup):
    kinds: EnumProperty(
        name="Videos",
        description="Which control videos are written",
        items=_ITEMS,
        options={"ENUM_FLAG"},
        default=set(PRESETS["VACE"][1]),
    )
    file_format: EnumProperty(
        name="Format",
        description="How they are written; all have the clip's size, frames and frame rate",
        items=(
            ("MP4", "MP4", "A movie each, H.264 at high quality"),
            ("PNG", "PNG", "A folder of pictures each, without loss"),
        ),
    )


def preset_of(kinds: set[str]) -> str:
    """The name of the preset that has exactly these kinds, "" where none has."""
    return next((name for name, (_, chosen) in PRESETS.items() if set(chosen) == set(kinds)), "")


def register() -> None:
    bpy.utils.register_class(PoseAnythingControl)
    bpy.types.Scene.poseanything_control = PointerProperty(type=PoseAnythingControl)


def unregister() -> None:
    del bpy.types.Scene.poseanything_control
    bpy.utils.unregister_class(PoseAnythingControl)
