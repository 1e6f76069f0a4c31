"""The server as a process of Blender's: the real one, and what goes wrong with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from shared.keys import keys_folder
from tests.addon.conftest import ROOT
from tests.addon.servers import module, wait_for
from tests.server.processes import Output

pytestmark = pytest.mark.any_blender


@pytest.fixture
def server(addon):
    process = module("connection.server").ServerProcess()
    yield process
    process.stop(wait=True)


def answers(address):
    """Whether a Hello is welcomed there."""
    client = module("connection.client").BridgeClient(address)
    client.start()
    try:
        return wait_for(lambda: client.welcome)
    finally:
        client.close()


def test_real_server_starts_answers_and_stops(server, server_python, monkeypatch):
    for name, value in (("PYTHONSAFEPATH", "1"), ("PYTHONPATH", "nowhere"), ("PYTHONHOME", "nowhere")):
        monkeypatch.setenv(name, value)  # of Blender's own Python
    folder = keys_folder().parent
    folder.mkdir(exist_ok=True)
    recent, old = folder / "server-5.log", folder / "server-any-port-x.log"
    for log in (recent, old):
        log.touch()
    os.utime(old, (0, 0))
    server.start(str(ROOT), server_python, "tcp://127.0.0.1:0")
    log = server._log
    assert log.exists() and recent.exists() and not old.exists()
    process = server._process
    wait_for(lambda: server.state != "STARTING", 60)
    assert server.state == "RUNNING", server.log_tail()
    assert answers(server.address).engines
    server.stop(wait=True)
    assert process.returncode == 0, "it ended by itself once its standard input was closed"
    assert server.state == "STOPPED"
    assert not log.exists()


def test_real_server_killed_is_noticed(server, server_python):
    server.start(str(ROOT), server_python, "tcp://127.0.0.1:0")
    wait_for(lambda: server.state == "RUNNING", 60)
    server._process.kill()
    wait_for(lambda: server.state == "FAILED")
    assert server.sentence.startswith("The server ended with code")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_server_ends_with_the_blender_that_started_it(server_python, addon):
    """Even when that Blender is killed: its end of the pipe closes with it."""
    package = str(Path(module("connection").__file__).parents[1])
    script = f"""
        import sys, time, types
        sys.modules["extension"] = types.ModuleType("extension")
        sys.modules["extension"].__path__ = [{package!r}]
        from extension.connection.server import ServerProcess
        process = ServerProcess()
        process.start({str(ROOT)!r}, {server_python!r}, "tcp://127.0.0.1:0")
        while process.state != "RUNNING":
            time.sleep(0.01)
        print(process._process.pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    child = int(Output(parent.stdout).line())
    parent.send_signal(signal.SIGKILL)
    parent.wait()

    def gone():
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        status = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(child)], capture_output=True, text=True, timeout=240
        ).stdout
        return status.strip().startswith("Z")

    wait_for(gone, 30)


def test_port_in_use(server, server_python):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = module("connection.listener").find_listener(port)
        assert found.name and found.pid == os.getpid()
        with pytest.raises(
            module("connection.server").ServerError, match=rf"{port} is in use by .+{found.pid}"
        ):
            server.start(str(ROOT), server_python, f"tcp://127.0.0.1:{port}")
    assert server.state == "STOPPED"


@pytest.mark.parametrize(
    "system, printed",
    [
        ("_on_macos", ["p314\ncControlCe\n"]),
        (
            "_on_windows",
            [
                "  TCP    127.0.0.1:47800     0.0.0.0:0      ABH\u00d6REN       314\n",
                '"ControlCe","314","Console","1","9.724 K"\n',
            ],
        ),
    ],
)
def test_who_listens_as_other_systems_tell(addon, monkeypatch, system, printed):
    listener, told = module("connection.listener"), iter(printed)
    monkeypatch.setattr(listener, "_printed", lambda *command: next(told))
    assert getattr(listener, system)(47800) == ("ControlCe", 314)
    monkeypatch.setattr(listener, "_printed", lambda *command: "")
    assert getattr(listener, system)(47800) is None


@pytest.mark.parametrize(
    ("folder", "python", "address", "words"),
    [
        ("", "", "tcp://127.0.0.1:0", "Set the Server Folder in the extension's preferences"),
        ("{tmp}", "", "tcp://127.0.0.1:0", "has no folder inference_server"),
        ("{tmp}/checkout", "", "tcp://127.0.0.1:0", "run 'python build.py setup' in"),
        ("{tmp}/checkout", "{tmp}/nowhere", "tcp://127.0.0.1:0", "can't be started: No such file"),
        ("{tmp}/checkout", "", "tcp://192.0.2.7:47847", "is another computer; start the server there"),
    ],
)
def test_start_that_can_not_be(server, tmp_path, folder, python, address, words):
    (tmp_path / "checkout" / "inference_server").mkdir(parents=True)
    with pytest.raises(module("connection.server").ServerError) as error:
        server.start(folder.format(tmp=tmp_path), python.format(tmp=tmp_path), address)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_environment_is_found_by_looking(addon, tmp_path):
    name = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    for environment in ("python3.13", "python3.11-bpy4.2", "python3.11"):
        path = tmp_path / ".venv" / environment / name
        path.parent.mkdir(parents=True)
        path.touch()
    assert module("connection.server")._interpreter(tmp_path) == str(tmp_path / ".venv/python3.11" / name)


def test_server_that_falls_over_shows_its_last_words(server, tmp_path):
    package = tmp_path / "inference_server"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("print('warming up')\nraise SystemExit('The card is too small.')\n")
    server.start(str(tmp_path), sys.executable, "tcp://127.0.0.1:0")
    wait_for(lambda: server.state == "FAILED")
    assert server.sentence == "The server ended with code 1: The card is too small."
    assert server.log_tail() == ["warming up", "The card is too small."]


def test_last_words_of_a_server_are_in_the_user_s_language(server, server_python, tmp_path, monkeypatch):
    (tmp_path / "jobs").touch()
    monkeypatch.setenv("POSEANYTHING_JOBS", str(tmp_path / "jobs"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    server.start(str(ROOT), server_python, f"tcp://127.0.0.1:{port}")
    wait_for(lambda: server.state == "FAILED", 60)
    words = server.sentence.values["words"]
    assert words.template == "Jobs can't be kept in {folder} ({reason}); name another folder with --jobs."
    assert f"{words}" in server.log_tail(), "as people read it, too"
