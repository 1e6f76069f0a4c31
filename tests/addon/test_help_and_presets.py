"""Help on each panel, presets, the context menus' button."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace

import bpy
import pytest

from tests.addon.servers import module

PAGES = Path(__file__).parents[2] / "docs" / "panels"


def panels():
    return [getattr(bpy.types, name) for name in dir(bpy.types) if name.startswith("POSEANYTHING_PT_")]


def test_every_panel_has_a_page(addon):
    help_of = module("operators.help")
    named = {panel.page for panel in panels() if hasattr(panel, "page")}
    assert named == {path.stem for path in PAGES.glob("*.md")}, (
        "each panel's page, and no page without a panel"
    )
    for name in named:
        lines = help_of.read_page(name)
        assert lines[0][0] == "title" and len(lines) > 3
        shown = " ".join(text for _, text in lines)
        assert not any(mark in shown for mark in ("**", "](", "![", "|", "`")), "no marks are left"
        assert not any(text.startswith("!") for _, text in lines), "nor pictures"
        assert max(len(text) for _, text in lines) <= help_of.COLUMNS


@pytest.mark.parametrize("block, expected", [
    ("# Takes", [("title", "Takes")]),
    ("- **Show** opens\n  it.\n- Other", [("item", "**Show** opens it."), ("item", "Other")]),
    ("1. Open\n   it.\n2. Go.", [("text", "1. Open it."), ("text", "2. Go.")]),
    ("| a | b |\n|---|---|\n| x | y z |", [("item", "x: y z")]),
])  # fmt: skip
def test_markdown_is_read_by_its_blocks(addon, block, expected):
    assert module("operators.help")._entries(block) == expected


def test_a_preset_brings_its_settings_to_another_scene(clean_scene, tmp_path, monkeypatch):
    presets = module("ui.presets")
    settings = clean_scene.poseanything
    settings.long_side, settings.pose_density, settings.prompt = 512, "NTH", "a fox"
    assert bpy.ops.poseanything.add_preset(name="Quick look") == {"FINISHED"}
    folder = presets.POSEANYTHING_PT_presets.preset_subdir
    path = bpy.utils.preset_find("Quick_look", folder)
    try:
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
        assert bpy.context.scene.poseanything.prompt == ""
        bpy.utils.execfile(path)
        settings = bpy.context.scene.poseanything
        assert (settings.long_side, settings.pose_density, settings.prompt) == (512, "NTH", "a fox")
    finally:
        bpy.ops.poseanything.add_preset(name="Quick look", remove_name=True)
    assert bpy.utils.preset_find("Quick_look", folder) is None


def test_control_videos_have_presets_of_the_user_s_own(clean_scene):
    """Kept as a file, so that it is there when Blender is started anew."""
    control, folder = clean_scene.poseanything_control, "poseanything_control"
    control.parts, control.file_format = True, "PNG"
    assert bpy.ops.poseanything.add_control_preset(name="Mine") == {"FINISHED"}
    path = bpy.utils.preset_find("Mine", folder)
    try:
        bpy.ops.poseanything.use_control_preset(preset="VACE")
        control.file_format = "MP4"
        bpy.utils.execfile(path)
        assert control.parts and control.depth and control.file_format == "PNG"
    finally:
        bpy.ops.poseanything.add_control_preset(name="Mine", remove_name=True)
    assert bpy.utils.preset_find("Mine", folder) is None


class Menu:
    """A menu that notes its buttons and labels."""

    def __init__(self):
        self.buttons, self.labels, self.layout = [], [], self

    def separator(self):
        pass

    def row(self, **_):
        return self

    column = row

    def prop(self, *_, **__):
        pass

    def label(self, text):
        self.labels.append(text)

    def operator(self, name, **_):
        self.buttons.append(name)
        return SimpleNamespace()


def test_no_preset_yet_is_no_error(addon):
    panel, menu = module("ui.presets").POSEANYTHING_PT_presets, Menu()
    assert not bpy.utils.preset_paths(panel.preset_subdir + "_of_nobody")
    for name in ("preset_subdir", "preset_operator", "preset_add_operator"):
        setattr(menu, name, getattr(panel, name))
    menu.preset_subdir += "_of_nobody"
    menu.path_menu = functools.partial(panel.path_menu, menu)
    panel.draw(menu, bpy.context)
    assert menu.labels == [] and menu.buttons == [panel.preset_add_operator]


def test_a_rig_s_context_menu_generates(shot):
    draw = module("ui.menus").draw_generate
    for name, expected in (("Rig", 1), ("Rig body", 1), ("Camera", 0)):
        bpy.context.view_layer.objects.active = bpy.data.objects[name]
        menu = Menu()
        menu.operator_context = "EXEC_REGION_WIN"  # as Blender's own menu leaves it, after Delete
        draw(menu, bpy.context)
        assert len(menu.buttons) == expected, name
        assert not expected or menu.operator_context == "INVOKE_DEFAULT", "it would hold the window up"
