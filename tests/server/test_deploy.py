"""What the container file and the unit do, done here: installed, started, invited to, used, stopped."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import site
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from inference_server.cli.remote import connect
from shared.request_file import write_request

from .client import ROOT, request
from .processes import Output

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a container's shell, a service's signals")
DEPLOY = ROOT / "inference_server" / "deploy"
CONTAINER = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
UNIT = (DEPLOY / "poseanything.service").read_text()


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", CONTAINER, re.MULTILINE)


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """The folder with the programs of a new environment, installed from what the container file copies; what
    they depend on is taken from the tests' own environment."""
    sources = tmp_path_factory.mktemp("source")
    for line in instructions("COPY"):
        *names, target = line.split()
        place = sources / Path(target).relative_to("/source")
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, place)
    (install,) = instructions("RUN")
    assert install.startswith('pip install --no-cache-dir "/source[model]" ')
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=240)
    (packages,) = environment.glob("lib/*/site-packages")
    (packages / "tests.pth").write_text("\n".join(site.getsitepackages()))
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "-q", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", sources], check=True, timeout=240)
    return python.parent


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextmanager
def started(command: list[str], environ: Mapping[str, str], folder: Path) -> Iterator[list[str]]:
    """Give what a program prints up to where it listens; it must end well when it is told to."""
    process = subprocess.Popen(command, env=environ, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        output = Output(process.stdout)
        output.line("listening on ")
        yield output.text.splitlines()
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_the_container_invites_and_makes_a_film_for_somebody_elsewhere(programs, tmp_path):
    data, elsewhere, port = tmp_path / "data", tmp_path / "elsewhere", free_port()
    for folder in (data, elsewhere):
        folder.mkdir()
    (environment,), (command,), (folder,) = map(instructions, ("ENV", "CMD", "WORKDIR"))
    path = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environ = dict(word.replace("/data", str(data)).split("=", 1) for word in shlex.split(environment))
    environ |= path | {"HOST": "127.0.0.1", "PORT": str(port)}
    serve = ["sh", "-c", command], environ, Path(folder.replace("/data", str(data)))
    with started(*serve) as (token, listening):
        assert listening == f"listening on tcp://0.0.0.0:{port}"
    write_request(elsewhere / "shot.poserequest", request("shot", "draft", num_frames=2))
    film = ["poseanything-generate", "--server", token, "--request", "shot.poserequest", "--output", "film"]
    with started(*serve) as said:
        assert said == [listening], "it has been invited already"
        done = subprocess.run(
            film,
            env=path | {"HOME": str(elsewhere)},
            cwd=elsewhere,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
    assert len(list((elsewhere / "film").glob("*.png"))) == 2
    assert {each.name for each in data.iterdir()} >= {"keys", "jobs"}


def test_the_unit_starts_a_server_that_who_is_invited_can_use(programs, tmp_path):
    state, port = tmp_path / "poseanything", free_port()
    state.mkdir()
    unit = UNIT.replace("%S", str(tmp_path)).replace("/opt/poseanything/bin", str(programs))
    unit = unit.replace("47847", str(port)).replace("User=poseanything", f"User={os.getuid()}")
    file = tmp_path / "poseanything.service"
    file.write_text(unit)
    if shutil.which("systemd-analyze"):
        verified = subprocess.run(
            ["systemd-analyze", "verify", file], capture_output=True, text=True, timeout=240
        )
        assert file.name not in verified.stderr, verified.stderr
    settings = re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE)
    environ = dict(value.split("=", 1) for name, value in settings if name == "Environment")
    environ |= {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    (command,) = [shlex.split(value) for name, value in settings if name == "ExecStart"]
    (folder,) = [value for name, value in settings if name == "WorkingDirectory"]
    address = f"tcp://127.0.0.1:{port}"

    def ask(*words: str) -> str:
        """As the one who runs the server does it."""
        return subprocess.run(
            [command[0], *words], env=environ, check=True, capture_output=True, text=True, timeout=240
        ).stdout

    token = ask("invite", "--name", "studio", "--address", address)
    with started(command, environ, Path(folder)), connect(token) as server:
        assert server.welcome.engines
        assert "studio" in ask("status", "--server", address)
    assert {each.name for each in state.iterdir()} == {"keys", "jobs"}
