"""Sentences in panels, which have no line breaks of their own, and what stands beside each other there."""

from __future__ import annotations

import re

import blf
import bpy

from ..texts.translation import shown

MARGIN = 90
"""Pixels of a sidebar, before scaling, that a box, an icon and the tabs take from a line."""
WIDE = 240
"""Pixels, before scaling, of a sidebar in which two words with icons have room beside each other."""
UNIT = 20
"""Pixels, before scaling, of a popover's unit of width."""


def is_wide(context) -> bool:
    """Whether a sidebar has room for what stands beside each other; everything else has."""
    region = context.region
    scale = context.preferences.system.ui_scale
    return region is None or region.type != "UI" or region.width > WIDE * scale


def beside(layout, context):
    """A layout for what stands beside each other, or below where a sidebar is narrow."""
    return layout.row(align=True) if is_wide(context) else layout.column(align=True)


def field(layout, context, data, name: str, text: str = "", **look) -> None:
    """A property as properties editors have it, with its name or `text` before it. Where a sidebar is narrow,
    what is chosen or typed stands below that."""
    named = {"text": text} if text else {}
    if not is_wide(context):
        about = data.bl_rna.properties[name]
        layout = layout.column(align=True)
        layout.use_property_split = False
        if about.type in ("ENUM", "STRING", "POINTER"):
            layout.label(text=shown(text or about.name), translate=False)
            layout = layout.row(align=True)
            named = {} if look.get("expand") else {"text": ""}
    layout.prop(data, name, **named, **look)


def switch(layout, context, data, name: str, heading: str, text: str) -> None:
    """A checkbox below a heading, or with its own name where a sidebar is narrow."""
    if is_wide(context):
        layout.column(heading=heading).prop(data, name, text=text)
    else:
        field(layout, context, data, name)


def menu_row(layout, context, label: str):
    """A row with a label where `field` has one; gives the layout for what stands beside or below it."""
    if not is_wide(context):
        layout.label(text=label)
        return layout.row()
    split = layout.split(factor=0.4)
    row = split.row()
    row.alignment = "RIGHT"
    row.label(text=label)
    return split


def paragraph(
    layout,
    context,
    text: str,
    icon: str = "NONE",
    alert: bool = False,
    most: int | None = None,
    units: int = 0,
) -> None:
    """A sentence over as many lines as it takes at the width of the sidebar, or of a popover that is `units`
    wide; at most `most`."""
    scale = context.preferences.system.ui_scale
    width = UNIT * units * scale if units else context.region.width if context.region is not None else 300
    blf.size(0, context.preferences.ui_styles[0].widget.points * scale)
    lines = wrapped(shown(text), width - MARGIN * scale, most)
    column = layout.column(align=True)
    column.scale_y = 0.8
    column.alert = alert
    for number, line in enumerate(lines):
        column.label(text=line, icon=icon if number == 0 else ("BLANK1" if icon != "NONE" else "NONE"))


def wrapped(text: str, room: float, most: int | None = None) -> list[str]:
    """A text as lines of at most `room` pixels, broken between words and behind a path's separators; the rest
    of one that takes more than `most` lines is left out."""
    lines = [""]
    for piece in filter(None, re.findall(r"(?:[^\s/\\]|//|\\\\)*[/\\]?\s*", text)):
        if lines[-1] and _width(lines[-1] + piece) > room:
            lines.append("")
        lines[-1] += piece
    if most is None or len(lines) <= most:
        return [line.rstrip() for line in lines]
    last = lines[most - 1].rstrip()
    while " " in last and _width(f"{last} ...") > room:
        last = last.rpartition(" ")[0]
    return [*(line.rstrip() for line in lines[: most - 1]), f"{last} ..."]


def _width(text: str) -> float:
    return blf.dimensions(0, text.rstrip())[0]


def light(colour: str) -> str:
    """A round lamp's icon: "green", "yellow", "red" or "grey". Blender 4.4 renamed them."""
    number = {"red": 1, "yellow": 3, "green": 4, "grey": 9}[colour]
    icons = bpy.types.UILayout.bl_rna.functions["label"].parameters["icon"].enum_items
    name = f"STRIP_COLOR_{number:02d}"
    return name if name in icons else f"SEQUENCE_COLOR_{number:02d}"
