"""The unit and the container start what the command line takes."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import socket
import subprocess
import sys

import pytest

from inference_server.cli import serve
from inference_server.cli.remote import connect

from .client import ROOT

DEPLOY = ROOT / "inference_server" / "deploy"


def test_the_unit_starts_a_server_that_exists():
    unit = (DEPLOY / "poseanything.service").read_text()
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    program, *words = shlex.split(line)
    assert program.endswith("/poseanything-server")
    parsed = serve.add_parser(argparse.ArgumentParser().add_subparsers()).parse_args(words)
    assert parsed.address == "tcp://0.0.0.0:47847" and str(parsed.jobs) == "%S/poseanything/jobs"


@pytest.mark.skipif(os.name != "posix", reason="a container's shell")
def test_the_containers_last_line_invites_and_serves(tmp_path):
    command = (DEPLOY / "Containerfile").read_text().splitlines()[-1].removeprefix("CMD ")
    program = tmp_path / "bin" / "poseanything-server"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from inference_server.cli.scripts import server\nsys.exit(server())\n"
    )
    program.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = os.environ | {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "POSEANYTHING_KEYS": str(tmp_path / "keys"),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "CARDS": "",
    }
    started = subprocess.Popen(["sh", "-c", command], env=environ, stdout=subprocess.PIPE, text=True)
    try:
        token = started.stdout.readline().strip()
        assert started.stdout.readline() == f"listening on tcp://0.0.0.0:{port}\n"
        with connect(token) as server:
            assert server.welcome.engines
    finally:
        started.terminate()
        assert started.wait(20) == 0
        started.stdout.close()
    assert (tmp_path / "jobs").is_dir()
