"""The server as pip installs it: from a wheel, in a folder that knows nothing of the sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from shared import __version__
from shared.messages import Done, Frame
from tests.server.client import ServerProcess, request

ROOT = Path(__file__).resolve().parents[1]
MINI = "inference_server/engines/mini/weights"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The project's wheel, built from a copy of its sources: setuptools leaves folders beside them."""
    sources = tmp_path_factory.mktemp("sources")
    for folder in ("shared", "inference_server", "blender_addon", "tests"):
        shutil.copytree(ROOT / folder, sources / folder, ignore=shutil.ignore_patterns("__pycache__", "data"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "build.py"):
        shutil.copy(ROOT / name, sources)
    target = tmp_path_factory.mktemp("wheel")
    command = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", target, sources]
    done = subprocess.run([*PIP, *command], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that holds the wheel's packages and, in `bin`, its console scripts."""
    site = tmp_path_factory.mktemp("site")
    subprocess.run([*PIP, "install", "--no-deps", "--target", site, wheel], check=True, timeout=240)
    return site


@pytest.fixture
def scripts(installed, monkeypatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    return installed / "bin"


def test_the_wheel_holds_the_server_and_the_contract_alone(wheel):
    assert wheel.name == f"poseanything_bridge-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {
        path.relative_to(ROOT).as_posix()
        for folder in ("shared", "inference_server")
        for path in (ROOT / folder).rglob("*.py")
    }
    weights = {path for path in (ROOT / MINI).rglob("*") if path.is_file()}
    assert {"config.json", "README.md"} < {path.name for path in weights}
    sources |= {path.relative_to(ROOT).as_posix() for path in weights}
    for folder in ("deploy", "training/recipes"):
        files = (path for path in (ROOT / "inference_server" / folder).rglob("*") if path.is_file())
        sources |= {path.relative_to(ROOT).as_posix() for path in files}
    information = f"poseanything_bridge-{__version__}.dist-info/"
    assert {name for name in names if not name.startswith(information)} == sources
    assert f"{information}licenses/LICENSE" in names


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


@pytest.fixture
def bare(scripts, tmp_path, monkeypatch):
    """The scripts, in a Python that has what the package depends on and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[\s<>=!~;]", listed)[0] for listed in project["dependencies"]}
    missing = {module for module, owners in packages_distributions().items() if needed.isdisjoint(owners)} - {
        "pip",
        "setuptools",
        "pkg_resources",
        "_distutils_hack",
    }
    assert "torch" not in needed and not missing & {"numpy", "cv2", "zmq", "msgpack"}
    (tmp_path / "sitecustomize.py").write_text(WITHOUT.format(missing=missing))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{scripts.parent}")
    return scripts


def test_the_installed_server_makes_a_clip_with_its_dependencies_alone(bare, tmp_path):
    with ServerProcess(program=[bare / "poseanything-server"], folder=tmp_path) as server:
        with server.client() as client:
            client.send(request("job", "draft", num_frames=3))
            assert isinstance(client.ending("job"), Done), client.events[-1]
            assert len(client.of(Frame, job="job")) == 3


SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_tells_how_it_is_used_by_its_own_name(script, scripts, tmp_path):
    done = subprocess.run(
        [scripts / script, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {script} [-h] ")


def test_the_installed_command_line_refuses_what_it_does_not_know(scripts, tmp_path):
    words = [scripts / "poseanything-generate", "--colour", "red", "--output", "clip.mp4"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=os.environ, timeout=240)
    assert done.returncode == 2 and "--colour" in done.stderr
