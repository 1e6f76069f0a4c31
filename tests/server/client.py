"""A client of the server as simple as one can be: one DEALER, blocking, and helpers that make valid requests.

For tests and benchmarks of whatever side; `Client` needs a server's address, `ServerProcess` starts one.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import uuid
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import zmq

from inference_server.broker.keys import KeyRing
from shared import wire
from shared.keys import Token, keys_folder
from shared.messages import ENDINGS, Cancel, GenerationRequest, Hello, More, Welcome
from shared.pieces import Sender
from shared.pose import Limb, Polyline, PoseSequence

from .processes import PATIENCE, Output

ROOT = Path(__file__).resolve().parents[2]

if "POSEANYTHING_KEYS" not in os.environ:  # in benchmarks, which pytest does not run
    _keys = tempfile.TemporaryDirectory(prefix="poseanything-keys-")
    os.environ["POSEANYTHING_KEYS"] = _keys.name


@cache
def user_token(user: str, folder: Path) -> Token:
    """The token of somebody who is invited now, unless they have been already."""
    with mock.patch("os.fsync"):  # a test's keys need not outlive a power failure
        return KeyRing(folder).invite(user, "")


class Client:
    """A connection of `user`, or of somebody new. `events` has every message received so far, in order."""

    def __init__(self, address: str, user: str | None = None, receive_limit: int = 1000):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.sndtimeo = int(PATIENCE * 1000)
        self.socket.rcvhwm = receive_limit
        user_token(user or uuid.uuid4().hex, keys_folder()).apply_to(self.socket)
        self.socket.connect(address)
        self.events: list[Any] = []
        self._sender = Sender(self.send_parts)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def send(self, message: Any) -> None:
        """What is too large to be sent at once goes on while messages are received."""
        self._sender.send(message)

    def send_parts(self, parts: Sequence[bytes]) -> bool:
        self.socket.send_multipart(parts)
        return True

    def receive(self, timeout: float = PATIENCE) -> Any:
        """The next message; raises `TimeoutError`."""
        if not self.socket.poll(int(timeout * 1000)):
            latest = [type(event).__name__ for event in self.events[-20:]]
            raise TimeoutError(f"nothing came within {timeout} s; so far: {latest}")
        message = wire.decode([part.buffer for part in self.socket.recv_multipart(copy=False)])
        if isinstance(message, More):
            self._sender.hear(message)
            return self.receive(timeout)
        self.events.append(message)
        return message

    def wait_for(self, *types: type, job: str | None = None, timeout: float = PATIENCE) -> Any:
        """Receive until a message of one of `types` (about `job`) comes, and return it."""
        deadline = time.monotonic() + timeout
        while True:
            message = self.receive(max(0.0, deadline - time.monotonic()))
            if isinstance(message, types) and (job is None or message.job == job):
                return message

    def ending(self, job: str | None = None) -> Any:
        """Receive until a job ends; returns its `Done`, `Failed` or `Cancelled`."""
        return self.wait_for(*ENDINGS, job=job)

    def welcome(self) -> Welcome:
        self.send(Hello(client="test"))
        return self.wait_for(Welcome)

    def cancel(self, job: str) -> None:
        self.send(Cancel(job=job))

    def of(self, *types: type, job: str | None = None) -> list[Any]:
        """What has been received of some types (about a job)."""
        return [e for e in self.events if isinstance(e, types) and (job is None or e.job == job)]


class ServerProcess:
    """A server in a process of its own on a free port.

    With `engines` (name -> "module:Class") it offers those and takes `settings` of `Settings`; without, it is
    the command that users run, as `program` spells it, in `folder`. `output` is its standard output, `log`
    its standard error. Raises `RuntimeError` with both where it does not listen in time.
    """

    def __init__(
        self,
        engines: dict[str, str] | None = None,
        arguments: Sequence[str] = (),
        program: Sequence[str] = (sys.executable, "-m", "inference_server", "serve"),
        folder: Path = ROOT,
        address: str = "tcp://127.0.0.1:0",
        python: str = sys.executable,
        **settings: Any,
    ):
        command = [*map(str, program), "--address", address, *arguments]
        if engines is not None:
            order = {"address": address, "engines": engines, **settings}
            command = [python, "-m", "tests.server.serve", json.dumps(order)]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={"OMP_NUM_THREADS": "1"} | os.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.output, self._errors = Output(self.process.stdout), Output(self.process.stderr)
        try:
            self.address = self.output.line("listening on ").split()[-1]
        except AssertionError as error:
            self.process.kill()
            self.process.stdin.close()
            self.wait()
            raise RuntimeError(f"the server did not start: {error}\n{self.log}") from None

    @property
    def log(self) -> str:
        return self._errors.text

    def client(self, *args, **kwargs) -> Client:
        return Client(self.address, *args, **kwargs)

    def stop(self, timeout: float = 20) -> int:
        """End it as a service manager would; returns the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait(timeout)

    def wait(self, timeout: float = 20) -> int:
        status = self.process.wait(timeout)
        self._errors.rest()
        return status

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_) -> None:
        try:
            self.stop()
        finally:
            self.process.kill()
            self.process.stdin.close()


def png(image: np.ndarray) -> bytes:
    """A PNG file of an RGB uint8 picture, unfiltered, written without any library's help."""
    height, width, _ = image.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def swing(num_frames: int, width: int, height: int) -> PoseSequence:
    """Two limbs in the middle of the picture, the lower of which swings."""
    knee, frames = np.array([width / 2, height / 2, 1.0]), []
    for i in range(num_frames):
        angle = 0.6 * np.sin(2 * np.pi * i / 24)
        foot = knee + height / 3 * np.array([np.sin(angle), np.cos(angle), 0.0])
        hip = knee - [0.0, height / 3, 0.0]
        frames.append([Polyline(0, np.stack([hip, knee])), Polyline(1, np.stack([knee, foot]))])
    return PoseSequence.from_frames(width, height, ["leg"], [Limb("thigh", 0), Limb("shin", 0)], frames)


def request(
    job: str, engine: str, num_frames: int = 5, width: int = 64, height: int = 48, **fields: Any
) -> GenerationRequest:
    """A small valid request; `fields` are further ones of `GenerationRequest`."""
    across = np.mgrid[0:height, 0:width][1].astype(np.uint8)
    fields.setdefault("first_frame", png(np.stack([across, across // 2, 255 - across], axis=-1)))
    fields.setdefault("pose", swing(num_frames, width, height))
    return GenerationRequest(
        job=job,
        engine=engine,
        width=width,
        height=height,
        num_frames=num_frames,
        fps=24.0,
        **fields,
    )


def memory(server: ServerProcess, which: str = "VmRSS") -> int:
    """Bytes that the broker holds (Linux)."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition(f"{which}:")[2].split()[0]) * 1024


def most_memory(server: ServerProcess) -> int:
    """The most that it has ever held."""
    return memory(server, "VmHWM")
