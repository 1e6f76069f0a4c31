"""The built zip, installed into a fresh Blender profile of the running `bpy`, as a user installs it."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = "bl_ext.user_default.poseanything_bridge"

# Blender reads the profile's place once, when bpy is first imported: before any test module does.
_profile = tempfile.TemporaryDirectory(prefix="blender-profile-")
os.environ["BLENDER_USER_RESOURCES"] = _profile.name
_ended_with = pytest.StashKey[int]()

bpy = pytest.importorskip("bpy", reason="Blender's module is not installed for this Python")


def _pack() -> Path:
    """The packed extension; packed now unless build.py names it."""
    if "POSEANYTHING_EXTENSION" in os.environ:
        return Path(os.environ["POSEANYTHING_EXTENSION"])
    command = [sys.executable, ROOT / "build.py", "extension"]
    packed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    return Path(packed.stdout.strip().splitlines()[-1])


# Before any test module is imported: zmq and msgpack may be there only as the extension's own wheels.
_zip = _pack()
bpy.ops.extensions.package_install_files(filepath=str(_zip), repo="user_default", enable_on_install=True)

from tests.addon.servers import SERVER_PYTHON, Talk, module  # noqa: E402
from tests.server.client import ServerProcess  # noqa: E402
from tests.server.processes import Output  # noqa: E402


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_ended_with] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Blender's module that has drawn something may wait at its end for threads that never do (seen before
    5.0)."""
    if _ended_with in config.stash:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_ended_with])


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


@pytest.fixture
def fake_server():
    """Starts fake servers: `fake_server("dies", pace=50)` gives the address; `.kill()` ends the newest at
    once."""
    processes = []

    def start(behaviour: str = "well", pace: float = 1000.0, address: str = "tcp://127.0.0.1:0") -> str:
        script = Path(__file__).with_name("fake_server.py")
        command = [SERVER_PYTHON, script, behaviour, "--frames-per-second", str(pace), "--address", address]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return Output(process.stdout).line("listening on ").split()[-1]

    def kill():
        processes[-1].kill()
        processes[-1].wait()

    start.kill = kill
    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def real_server(server_python):
    """Starts the server itself, with an engine that is made for tests."""
    if subprocess.run(
        [server_python, "-c", "import cv2, zmq, msgpack"], capture_output=True, timeout=240
    ).returncode:
        pytest.skip("POSEANYTHING_SERVER_PYTHON names no Python that has the server's packages")
    return partial(ServerProcess, {"plain": "tests.server.engines:Plain"}, python=server_python)


@pytest.fixture
def talk(addon):
    talks = []

    def start(address, token=None):
        talks.append(Talk(address, token))
        return talks[-1]

    yield start
    for one in talks:
        one.client.close()
        assert not one.client._thread.is_alive()


@pytest.fixture
def shot(clean_scene, tmp_path):
    """A small shot, ready to be generated: rig, camera, saved file; gives the scene."""
    scene = clean_scene
    from tests.addon.scenes import make_rig

    make_rig()
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    camera.location, camera.rotation_euler = (1.5, -8, 1), (1.5, 0, 0)
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.frame_start, scene.frame_end = 5, 16
    scene.render.resolution_x, scene.render.resolution_y = 512, 288
    scene.render.engine = "BLENDER_WORKBENCH"
    scene.poseanything.long_side = 128
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    yield scene
    bridge = module("session").get().bridge
    bridge.disconnect()
    bridge.jobs.clear()


@pytest.fixture
def preferences(addon):
    preferences = bpy.context.preferences.addons[addon.__name__].preferences
    yield preferences
    for name in ("address", "autostart", "server_folder", "server_python", "output_folder"):
        preferences.property_unset(name)
    bridge = module("session").get().bridge
    bridge.disconnect()
    bridge.server.stop(wait=True)


@pytest.fixture
def served(preferences, fake_server):
    """Connects to a fake server of a behaviour."""

    def serve(behaviour="well", pace=1000.0):
        preferences.autostart = False
        preferences.address = fake_server(behaviour, pace)

    return serve


@pytest.fixture
def sent(addon, monkeypatch):
    """Every request that is sent."""
    requests = []
    client = module("connection.client").BridgeClient
    submit = client.submit

    def note(self, request, writer):
        requests.append(request)
        submit(self, request, writer)

    monkeypatch.setattr(client, "submit", note)
    return requests
