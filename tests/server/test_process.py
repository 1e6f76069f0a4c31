"""The server as a command: how it starts, listens, stops, and what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inference_server.broker.store import REQUEST
from shared.keys import keys_folder
from shared.messages import Failed, Frame, Queued, Resume

from .client import PATIENCE, ROOT, ServerProcess, request, user_token
from .engines import ENGINES
from .processes import wait_for_end


def command(*arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "inference_server", *arguments]
    return subprocess.run(
        line, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL
    )


def worker_of(client) -> int:
    client.send(request("who", "plain"))
    return int(client.ending("who").note)


def test_it_says_where_it_listens_and_nothing_else():
    with ServerProcess() as server:
        assert server.address.startswith("tcp://127.0.0.1:") and not server.address.endswith(":0")
        with server.client() as client:
            assert {"draft", "poseanything"} <= {engine.name for engine in client.welcome().engines}
        server.process.terminate()
        assert server.wait() == 0
        assert server.output.rest() == f"listening on {server.address}\n"


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_disk_that_does_not_answer_keeps_no_server_from_ending(tmp_path):
    """Stood in for by a pipe that nobody writes to, in place of the next job's request."""
    with ServerProcess(ENGINES, jobs=str(tmp_path), stop_timeout=0.5) as server, server.client() as client:
        for job in ("running", "waiting"):
            client.send(request(job, "plain", num_frames=1000, engine_options={"pause": 0.05}))
        client.wait_for(Queued, job="waiting")
        client.wait_for(Frame, job="running")
        pipes = list(tmp_path.rglob(REQUEST))
        for path in pipes:
            path.unlink()
            os.mkfifo(path)
        client.cancel("running")
        deadline = time.monotonic() + PATIENCE
        while not (reader := next(filter(None, map(reader_of, pipes)), None)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.process.terminate()
        assert server.wait() == 1
        assert "keeper.py" in server.log, "it says where it stood"
        os.close(reader)


def reader_of(pipe: Path) -> int | None:
    """A handle that keeps who reads a pipe waiting, where anybody does."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(number):
    with ServerProcess(ENGINES) as server, server.client() as client:
        worker = worker_of(client)
        for job in ("running", "waiting"):
            client.send(request(job, "plain", num_frames=1000, engine_options={"pause": 0.05}))
        client.wait_for(Queued, job="waiting")
        client.wait_for(Frame, job="running")
        server.process.send_signal(number)
        for job in ("running", "waiting"):
            failed = client.ending(job)
            assert isinstance(failed, Failed) and "stopped before this clip was done" in failed.message
        assert server.wait() == 0
        wait_for_end(worker)
        assert "Traceback" not in server.log


def test_it_ends_when_its_standard_input_closes():
    with ServerProcess(arguments=["--exit-with-stdin"]) as server:
        server.process.stdin.write("words on the way are passed over\n")
        server.process.stdin.flush()
        with server.client() as client:
            assert client.welcome()
        server.process.stdin.close()
        assert server.wait() == 0


def test_it_finishes_what_waits_when_the_blender_that_started_it_is_gone(tmp_path):
    """And keeps serving whoever is connected meanwhile; the word `stop` ends it at once."""
    jobs = str(tmp_path / "jobs")
    with ServerProcess(ENGINES, jobs=jobs, finish=True) as server:
        with server.client(user="quitter") as client:
            client.send(request("left", "plain", num_frames=40, engine_options={"pause": 0.03}))
            client.wait_for(Frame, job="left")
            server.process.stdin.close()
        assert server.wait(60) == 0
    with ServerProcess(ENGINES, jobs=jobs, finish=True) as server:
        with server.client(user="quitter") as client:
            client.send(Resume(job="left", have=1))
            assert client.ending("left").num_frames == 40
            assert [frame.index for frame in client.of(Frame)] == list(range(1, 40))
            client.send(request("next", "plain", num_frames=1000, engine_options={"pause": 0.05}))
            client.wait_for(Frame, job="next")
            server.process.stdin.write("stop\n")
            server.process.stdin.flush()
            assert server.wait() == 0


def test_it_does_not_wait_for_a_client_that_is_frozen(tmp_path):
    settings = {"jobs": str(tmp_path / "jobs"), "finish": True, "client_timeout": 3.0}
    with ServerProcess(ENGINES, **settings) as server, server.client() as client:
        assert client.welcome()
        server.process.stdin.close()
        assert server.wait() == 0


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_server_takes_its_worker_along():
    with ServerProcess(ENGINES) as server, server.client() as client:
        worker = worker_of(client)
        client.send(request("deaf", "deaf"))
        client.receive()
        server.process.kill()
        wait_for_end(worker)


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        done = command("serve", "--address", address)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"{address} is in use already") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "tcp://:0", "ipc:///tmp/x", ""]
)
def test_an_address_that_is_none(address):
    done = command("serve", "--address", address)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"{address!r} is not an address") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("address", ["tcp://nonesuch.invalid:1", "tcp://192.0.2.1:1"])
def test_an_address_of_another_machine(address):
    user_token("somebody", keys_folder())
    done = command("serve", "--address", address)
    assert done.returncode == 1 and done.stdout == ""
    assert f"Can't listen on {address}" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("address", ["tcp://localhost:0", "tcp://[::1]:0"])
def test_other_names_of_this_machine(address):
    if address.startswith("tcp://[") and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with ServerProcess(arguments=["--address", address]) as server:
        assert server.address.startswith(("tcp://127.0.0.1:", "tcp://[::1]:"))


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_help_names_the_commands_and_imports_nothing():
    done = command("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("serve", "weights", "convert"))
    assert command().returncode == 2


def test_what_clients_talk_to_needs_no_engine_and_no_torch():
    code = (
        "import sys; from inference_server.cli import serve; from inference_server.broker import broker; "
        "sys.exit(str([m for m in ('torch', 'cv2', 'inference_server.engines.draft') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.stderr.strip() == "[]"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_talk_where_no_other_user_can(tmp_path):
    with ServerProcess(ENGINES) as server, server.client() as client:
        sockets = [row.split()[-1] for row in open("/proc/net/unix") if "poseanything-" in row]
        folders = [Path(path).parent for path in sockets if Path(path).exists()]
        assert folders and all(folder.stat().st_mode & 0o077 == 0 for folder in folders)
        worker = Path(f"/proc/{worker_of(client)}")
        for exposed in ("cmdline", "environ"):
            assert not re.search(rb"[0-9a-f]{64}", (worker / exposed).read_bytes()), "no secret is shown"
