"""The built zip, installed into a fresh Blender profile of the running `bpy`, as a user installs it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = "bl_ext.user_default.poseanything_bridge"

# Blender reads the profile's place once, when bpy is first imported: before any test module does.
_profile = tempfile.TemporaryDirectory(prefix="blender-profile-")
os.environ["BLENDER_USER_RESOURCES"] = _profile.name

bpy = pytest.importorskip("bpy", reason="Blender's module is not installed for this Python")


def _pack() -> Path:
    """The packed extension; packed now unless build.py names it."""
    if "POSEANYTHING_EXTENSION" in os.environ:
        return Path(os.environ["POSEANYTHING_EXTENSION"])
    command = [sys.executable, ROOT / "build.py", "extension"]
    packed = subprocess.run(command, capture_output=True, text=True, check=True)
    return Path(packed.stdout.strip().splitlines()[-1])


# Before any test module is imported: zmq and msgpack may be there only as the extension's own wheels.
_zip = _pack()
bpy.ops.extensions.package_install_files(filepath=str(_zip), repo="user_default", enable_on_install=True)


@pytest.fixture(scope="session")
def extension_zip() -> Path:
    """The packed extension."""
    return _zip


@pytest.fixture(scope="session")
def addon():
    """The extension's package, installed and enabled."""
    return import_module(MODULE)


@pytest.fixture(scope="session")
def server_python() -> str:
    """The Python of the environment that can run the inference server."""
    return os.environ.get("POSEANYTHING_SERVER_PYTHON", sys.executable)


@pytest.fixture
def clean_scene(addon):
    """An empty file with the extension still enabled; gives the scene."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    assert MODULE in bpy.context.preferences.addons
    return bpy.context.scene
