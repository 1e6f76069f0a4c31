"""The one door, as somebody meets it who has never seen the project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import build

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / "build.py", *words], capture_output=True, text=True)


def test_help_names_every_command():
    done = run("--help")
    assert done.returncode == 0
    for command in ("demo", "test", "bench", "extension", "serve", "weights", "generate", "setup"):
        assert f"\n    {command}" in done.stdout


def test_without_a_command_says_what_is_missing():
    done = run()
    assert done.returncode == 2
    assert "COMMAND" in done.stderr


def test_a_benchmark_that_is_not_there_is_one_sentence():
    done = run("bench", "nonsense")
    assert done.returncode == 1
    assert done.stderr.startswith("build.py: There is no benchmark named 'nonsense'; choose from ")
    assert "Traceback" not in done.stderr


def test_words_after_test_go_to_pytest_untouched():
    arguments = build.parse(["test", "tests/contract", "-k", "raster", "--blender", "4.5", "-x"])
    assert arguments.blender == "4.5"
    assert arguments.pytest == ["tests/contract", "-k", "raster", "-x"]


def test_words_that_nobody_takes_are_refused():
    with pytest.raises(SystemExit):
        build.parse(["demo", "--colour", "red"])


def test_a_blender_this_python_cannot_hold_is_one_sentence():
    with pytest.raises(build.BuildError, match=r"Blender 3\.6 can't run on this Python; it can hold \d"):
        build.Environment("3.6")


def test_setup_with_nothing_to_do_installs_nothing(monkeypatch):
    environment = build.Environment()
    stamp = environment.folder / "installed.json"
    if not stamp.exists():
        pytest.skip("the environment was not made by build.py")
    monkeypatch.setattr(build.Environment, "_pip", lambda *_: pytest.fail("something was installed again"))
    environment.ensure("server").for_blender()


def test_every_wheel_that_the_manifest_names_is_in_the_zip():
    import tomllib
    import zipfile

    manifest = tomllib.loads((ROOT / "blender_addon" / "blender_manifest.toml").read_text())
    packed = build.build_extension(build.Environment())
    with zipfile.ZipFile(packed) as archive:
        names = set(archive.namelist())
        assert {entry.removeprefix("./") for entry in manifest["wheels"]} <= names
        assert {"__init__.py", "LICENSE", "shared/wire.py"} <= names
        assert archive.testzip() is None
    assert not [
        name for name in names if "__pycache__" in name or name.startswith(("tests/", "inference_server/"))
    ]
