"""What the bridge's benchmarks share: an engine with ready pictures, a server that has it, and the
installed extension."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from importlib import import_module
from pathlib import Path

import numpy as np

from inference_server.engines.base import Engine, Picture
from shared.messages import EngineDescription
from tests.server.processes import Output, start_server

ROOT = Path(__file__).resolve().parents[2]
MODULE = "bl_ext.user_default.poseanything_bridge"
FRAMES, WIDTH, HEIGHT = 81, 832, 480


def pictures() -> list[np.ndarray]:
    """[HEIGHT, WIDTH, 3] uint8 each: smooth shapes that drift, under the grain of a render; as PNGs about
    0.8 MB each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    grain = rng.normal(0, 2, (HEIGHT, WIDTH, 3)).astype(np.float32)
    result = []
    for i in range(FRAMES):
        waves = [
            120 + 80 * np.sin((x + 3 * i) / (60 + 20 * c)) * np.cos((y - i) / (50 + 10 * c)) for c in range(3)
        ]
        result.append(
            (np.stack(waves, axis=-1) + np.roll(grain, 7 * i, axis=1)).clip(0, 255).astype(np.uint8)
        )
    return result


class Footage(Engine):
    """Pictures made before anybody waits for them, so that what is measured is the way they go."""

    @classmethod
    def describe(cls):
        return EngineDescription(name="footage", label="Footage", summary="A benchmark.", neural=False)

    def load(self):
        self.pictures = pictures()
        return iter(())

    def generate(self, request, cancelled):
        for index in range(request.num_frames):
            yield Picture(index, self.pictures[index])


class Server:
    """The real server in a process of its own, with that engine alone. A context."""

    def __enter__(self) -> Server:
        settings = {"address": "tcp://127.0.0.1:0", "engines": {"footage": f"{__name__}:Footage"}}
        self._process = start_server(settings)
        self.address = Output(self._process.stdout).line("listening on ").split()[-1]
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        self._process.wait()


def install() -> None:
    """Install the built zip into a fresh profile of this process's Blender; `module` then finds its parts."""
    profile = tempfile.mkdtemp(prefix="blender-profile-")
    os.environ["BLENDER_USER_RESOURCES"] = profile
    import bpy

    package = os.environ.get("POSEANYTHING_EXTENSION")
    if package is None:
        packed = subprocess.run(
            [sys.executable, ROOT / "build.py", "extension"],
            capture_output=True,
            text=True,
            check=True,
            timeout=240,
        )
        package = packed.stdout.strip().splitlines()[-1]
    bpy.ops.extensions.package_install_files(filepath=package, repo="user_default", enable_on_install=True)


def module(name: str):
    return import_module(f"{MODULE}.{name}")


def make_request():
    """All of the footage."""
    from tests.contract.strategies import png

    messages, pose = module("shared.messages"), module("shared.pose")
    frames = [[pose.Polyline(0, np.array([[i, 0, 1], [i, 99, 1]], np.float32))] for i in range(FRAMES)]
    return messages.GenerationRequest(
        job=uuid.uuid4().hex,
        engine="footage",
        width=WIDTH,
        height=HEIGHT,
        num_frames=FRAMES,
        fps=24.0,
        first_frame=png(WIDTH, HEIGHT),
        pose=pose.PoseSequence.from_frames(WIDTH, HEIGHT, ("body",), (pose.Limb("bone", 0),), frames),
    )
