"""Sentences in panels, which have no line breaks of their own."""

from __future__ import annotations

import textwrap

import blf
import bpy

from ..texts.translation import shown

MARGIN = 105
"""Pixels of a sidebar, before scaling, that a box, an icon and the tabs take from a line."""


def paragraph(
    layout, context, text: str, icon: str = "NONE", alert: bool = False, most: int | None = None
) -> None:
    """A sentence over as many lines as it takes at the width of the sidebar, at most `most`."""
    width = context.region.width if context.region is not None else 300
    scale = context.preferences.system.ui_scale
    blf.size(0, 11 * scale)
    letter = blf.dimensions(0, "abcdefghij klmnopqrst")[0] / 21
    columns = max(int((width - MARGIN * scale) / letter), 16)
    text = shown(text)
    column = layout.column(align=True)
    column.scale_y = 0.8
    column.alert = alert
    lines = textwrap.wrap(text, columns, max_lines=most, placeholder=" ...")
    for number, line in enumerate(lines):
        column.label(text=line, icon=icon if number == 0 else ("BLANK1" if icon != "NONE" else "NONE"))


def light(colour: str) -> str:
    """A round lamp's icon: "green", "yellow", "red" or "grey". Blender 4.4 renamed them."""
    number = {"red": 1, "yellow": 3, "green": 4, "grey": 9}[colour]
    icons = bpy.types.UILayout.bl_rna.functions["label"].parameters["icon"].enum_items
    name = f"STRIP_COLOR_{number:02d}"
    return name if name in icons else f"SEQUENCE_COLOR_{number:02d}"
