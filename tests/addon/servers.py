"""The fake server and the extension's modules, and small requests to send."""

from __future__ import annotations

import os
import sys
import time
import uuid
import zlib
from contextlib import contextmanager
from importlib import import_module

import numpy as np

from shared import wire
from shared.messages import Welcome

SERVER_PYTHON = os.environ.get("POSEANYTHING_SERVER_PYTHON", sys.executable)
"""The Python of the environment that can run servers; Blender's own has only what the extension brings
along."""
PACKAGE = "bl_ext.user_default.poseanything_bridge"


def module(name: str):
    """A module of the installed extension."""
    return import_module(f"{PACKAGE}.{name}")


def own_goodbyes():
    """What this user's own server has yet to confirm."""
    return module("connection.goodbyes").Goodbyes(module("shared.keys").local_token().account)


def described_there(engines):
    """Descriptions of engines as they reach the extension, whose classes are its own."""
    there = module("shared.messages").Welcome
    parts = wire.encode(Welcome(server_version="", engines=tuple(engines)))
    return module("shared.wire").decode(parts, (there,)).engines


def png(image: np.ndarray) -> bytes:
    """A PNG file of an RGB uint8 picture."""
    height, width, _ = image.shape
    rows = b"".join(b"\0" + row.tobytes() for row in image)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def make_request(num_frames: int = 8, width: int = 64, height: int = 32, **fields):
    """A request for a small clip of one limb that moves."""
    messages, pose = module("shared.messages"), module("shared.pose")
    frames = [
        [pose.Polyline(0, np.array([[4 + i % 50, 4, 1], [8 + i % 50, 28, 1]], np.float32))]
        for i in range(num_frames)
    ]
    picture = np.full((height, width, 3), (128, 128, 51), np.uint8)
    return messages.GenerationRequest(
        **{
            "job": uuid.uuid4().hex,
            "engine": "draft",
            "width": width,
            "height": height,
            "num_frames": num_frames,
            "fps": 24.0,
            "first_frame": png(picture),
            "pose": pose.PoseSequence.from_frames(width, height, ("body",), (pose.Limb("bone", 0),), frames),
            **fields,
        }
    )


def wait_for(condition, seconds: float = 20.0):
    """Wait until `condition()` is true, and give its value; fails after a time no working machine needs."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.005)
    return value


class Talk:
    """A client and everything it has said so far."""

    def __init__(self, address, token=None):
        self.client = module("connection.client").BridgeClient(address, "test", token)
        self.client.start()
        self.events = []

    def submit(self, folder, request=None, **fields):
        request = request or make_request(**fields)
        folder.mkdir(exist_ok=True)
        writer = module("takes.writer").TakeWriter(folder, "take", request.num_frames)
        self.client.submit(request, writer)
        return request

    def heard(self, kind, job=None):
        self.events += self.client.poll()
        return [e for e in self.events if type(e).__name__ == kind and job in (None, getattr(e, "job", None))]

    def ending(self, job):
        """The job's last event."""

        def ended():
            return self.heard("Done", job) or self.heard("Failed", job) or self.heard("Cancelled", job)

        return wait_for(ended)[0]


@contextmanager
def overridden(**members):
    """A context override, in which Blender's operators end it beside a thread that is at work."""
    import bpy

    with module("threads").still(), bpy.context.temp_override(**members):
        yield
