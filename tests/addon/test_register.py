"""Enabling and disabling leaves Blender as it was."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import bpy
import pytest

import inference_server
import shared
from inference_server.engines import ENGINES, describe_engine
from tests.addon.servers import described_there, module


def state():
    """What an extension leaves its traces in."""
    handlers = {
        name: len(getattr(bpy.app.handlers, name))
        for name in dir(bpy.app.handlers)
        if isinstance(getattr(bpy.app.handlers, name), list)
    }
    classes = {name for name in dir(bpy.types) if "POSEANYTHING" in name.upper()}
    operators = set(dir(bpy.ops.poseanything))
    properties = {
        (owner.__name__, name)
        for owner in (
            bpy.types.Scene,
            bpy.types.Armature,
            bpy.types.Bone,
            bpy.types.Object,
            bpy.types.WindowManager,
        )
        for name in owner.bl_rna.properties.keys()
        if "poseanything" in name
    }
    threads = {thread.name for thread in threading.enumerate() if thread.name.startswith("poseanything")}
    drawn = len(getattr(bpy.types.STATUSBAR_HT_header.draw, "_draw_funcs", ()))
    return handlers, classes, operators, properties, threads, drawn


def test_ten_times_over(addon, clean_scene, fake_server):
    tick = module("ui.refresh").tick
    on = state()
    assert on[1] and on[2] and on[3] and bpy.app.timers.is_registered(tick)
    addon.unregister()
    off = state()
    address = fake_server()
    assert not off[1] and not off[2] and not off[3] and not bpy.app.timers.is_registered(tick)
    try:
        for _ in range(10):
            addon.register()
            assert state() == on
            session = module("session").get()
            session.bridge.connect(address, online=False)
            assert state()[4], "the client's thread runs"
            addon.unregister()
            assert state() == off, "and ends with the extension"
    finally:
        addon.register()


def test_register_that_fails_half_way_leaves_nothing(addon, monkeypatch):
    on = state()
    addon.unregister()
    off = state()
    monkeypatch.setattr(addon.ui, "register", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        addon.register()
    assert state() == off
    monkeypatch.undo()
    addon.register()
    assert state() == on


def test_every_property_and_operator_explains_itself(addon):
    settings = bpy.types.Scene.bl_rna.properties["poseanything"].fixed_type
    preferences = bpy.types.AddonPreferences.bl_rna_get_subclass_py("BridgePreferences").bl_rna
    missing = []
    engine_settings = module("engine_settings")
    engine_settings.follow(described_there(map(describe_engine, ENGINES)))
    groups = [cls.bl_rna for made in engine_settings._classes.values() for cls in made]
    assert len(groups) > len(ENGINES)
    for group in (settings, preferences, *groups):
        for prop in group.properties:
            own = prop.identifier not in ("rna_type", "name", "bl_idname")
            if own and not prop.is_hidden and not prop.description:
                missing.append(f"{group.identifier}.{prop.identifier}")
            if own and prop.type == "ENUM":
                missing += [
                    f"{prop.identifier}={item.identifier}" for item in prop.enum_items if not item.description
                ]
    for name in dir(bpy.ops.poseanything):
        rna = getattr(bpy.ops.poseanything, name).get_rna_type()
        if not rna.description or rna.description.endswith("."):
            missing.append(name)
    assert not missing


def test_timer_outlives_loading_a_file(addon, clean_scene):
    """A timer that is not persistent ends at the first file load, and with it every running job."""
    bpy.ops.wm.read_homefile(use_empty=True)
    assert bpy.app.timers.is_registered(module("ui.refresh").tick)


def test_no_state_on_classes(addon):
    """Two windows, two scenes: what is on a class is shared by all of them."""
    for name in dir(bpy.types):
        cls = getattr(bpy.types, name)
        if "POSEANYTHING" in name.upper() and hasattr(cls, "__dict__"):
            mutable = [
                k for k, v in vars(cls).items() if isinstance(v, (list, dict)) and not k.startswith("__")
            ]
            assert not mutable, (name, mutable)


def test_everything_names_one_version(addon):
    assert re.fullmatch(r"\d+\.\d+\.\d+", shared.__version__)
    assert module("session").get().version == inference_server.__version__ == shared.__version__


@pytest.mark.any_blender
def test_a_package_that_is_missing_is_one_sentence(addon, tmp_path):
    """What Blender shows of an extension that can't be switched on is the error's text."""
    (tmp_path / "bridge").symlink_to(Path(addon.__file__).parent, target_is_directory=True)
    code = "import sys; sys.modules['zmq'] = None; import bpy; import bridge"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert "ImportError: A package that comes with PoseAnything Bridge's zip is missing" in ran.stderr
