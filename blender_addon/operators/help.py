"""The documentation of a panel, where the panel is."""

from __future__ import annotations

import re
import textwrap
from functools import cache
from pathlib import Path

import bpy
from bpy.props import StringProperty

from ..texts import say

PAGES = Path(__file__).parent.parent / "docs"
"""One Markdown file a page, packed from the project's docs/panels."""
WIDTH = 640
"""Of the window with the page, in pixels before scaling."""
COLUMNS = 100


class POSEANYTHING_OT_help(bpy.types.Operator):
    bl_idname = "poseanything.help"
    bl_label = "Help"
    bl_description = "Read what this panel does"
    bl_options = {"INTERNAL"}

    page: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context, event):
        return context.window_manager.invoke_popup(self, width=WIDTH)

    def execute(self, context):
        return {"FINISHED"}

    def draw(self, context):
        column = self.layout.column(align=True)
        column.scale_y = 0.85  # a long page is cut off at the window's edge
        for kind, text in read_page(self.page):
            if kind == "gap":
                column.separator()
            else:
                icon = {"title": "QUESTION", "item": "DOT", "more": "BLANK1"}.get(kind, "NONE")
                column.label(text=text, icon=icon)


@cache
def read_page(name: str) -> list[tuple[str, str]]:
    """A page as lines for a popup: what each is ("title", "text", "item", "more" of an item, "gap") and its
    words."""
    try:
        source = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    except OSError:
        return [("text", say("The page {name} is not there; install the extension again.", name=name))]
    lines: list[tuple[str, str]] = []
    for block in re.split(r"\n\s*\n", source):
        if block.startswith("!["):
            continue  # a picture, which a popup can't show
        if lines:
            lines.append(("gap", ""))
        for kind, text in _entries(block):
            wrapped = textwrap.wrap(_plain(text), COLUMNS)
            lines += [
                (kind if number == 0 or kind != "item" else "more", line)
                for number, line in enumerate(wrapped)
            ]
    return lines


def _entries(block: str) -> list[tuple[str, str]]:
    """A block of Markdown as whole sentences: a heading, a paragraph, the items of a list, numbered or
    not, a table's rows."""
    if block.startswith("#"):
        return [("title", block.lstrip("# "))]
    if block.startswith("|"):
        rows = [
            [cell.strip() for cell in row.strip().strip("|").split("|")] for row in block.splitlines()[2:]
        ]
        return [("item", ": ".join(cells)) for cells in rows]
    if block.startswith("- "):
        return [("item", " ".join(item.split())) for item in re.split(r"^- ", block, flags=re.MULTILINE)[1:]]
    steps = re.split(r"^(?=\d+\. )", block, flags=re.MULTILINE)
    return [("text", " ".join(step.split())) for step in steps if step]


def _plain(text: str) -> str:
    """Markdown without its marks."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"\*\*|\*|`", "", text)


register, unregister = bpy.utils.register_classes_factory((POSEANYTHING_OT_help,))
