"""A server that behaves, or misbehaves, as told: the other end for tests of killed, slow, foreign and hostile
servers.

    python fake_server.py BEHAVIOUR [--frames-per-second N] [--address tcp://127.0.0.1:0]

Prints `listening on ADDRESS` like the real one. Each result frame is the request's first frame, so that
what arrives is known.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zmq

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from inference_server.broker.keys import KeyRing  # noqa: E402
from shared import messages, wire  # noqa: E402
from shared.engines import (  # noqa: E402
    EngineDescription,
    Guidance,
    GuiderDescription,
    OptionDescription,
    Preset,
    describe_options,
    option,
)
from shared.keys import keys_folder  # noqa: E402
from shared.messages import (  # noqa: E402
    Accepted,
    Cancel,
    Cancelled,
    Done,
    Failed,
    Forgotten,
    Frame,
    GenerationRequest,
    Hello,
    LiveClose,
    LiveEnded,
    LiveOpen,
    LivePicture,
    LivePose,
    LiveReady,
    Preview,
    Progress,
    Queued,
    Received,
    Resume,
    Welcome,
)
from shared.pieces import Assembly  # noqa: E402


@dataclass(frozen=True)
class Options:
    """An option of each type."""

    cache: str = option(
        "none", "Cache", "What is left out", choices={"none": ("None", ""), "all": ("All", "Everything")}
    )
    loras: dict = option({}, "LoRAs", "Files with a strength each", minimum=-2, maximum=2)
    threshold: float = option(
        0.1, "Threshold", "How much", minimum=0, maximum=0.3, advanced=True, group="Speed"
    )
    parts: int = option(6, "Parts", "How many", minimum=0, maximum=50, advanced=True, group="Parts")
    compile: bool = option(False, "Compile", "Compile the blocks", advanced=True, group="Speed")
    note: str = option("", "Note", "Anything", advanced=True)


SCALE = OptionDescription("guidance_scale", "float", "Strength", "How far", 2.0, 0, 30)
TEXT = OptionDescription("text_negative", "bool", "Text", "Negate the text", True)
CHOICES = {
    "guiders": (
        GuiderDescription("none", "None", "One evaluation"),
        GuiderDescription("push", "Push", "Away from a branch", 2, parameters=(SCALE, TEXT)),
        GuiderDescription("turn", "Turn", "By the camera", 3, needs_camera=True, parameters=(SCALE,)),
    ),
    "options": describe_options(Options, {"loras": ["film.safetensors", "fur.safetensors"]}),
    "presets": (
        Preset("release", "Release", "As released"),
        Preset("fast", "Fast", "Few steps", {"cache": "all"}, num_inference_steps=20),
        Preset("close", "Close", "Near the pose", guidance=Guidance("push", {"guidance_scale": 3.0})),
    ),
    "uses_steps": True,
    "default_steps": 50,
}
ENGINES = (
    EngineDescription("draft", "Draft", "Moves the parts of the first frame.", neural=False, live=True),
    EngineDescription(
        "studio", "Studio", "Takes every option.", neural=False, runs_on="Runs well.", **CHOICES
    ),
    EngineDescription(
        "poseanything",
        "PoseAnything",
        "The model.",
        neural=True,
        size_multiple=32,
        frame_step=4,
        max_frames=121,
        ready=False,
        reason="Its weights are not here.",
        **CHOICES,
    ),
)


class FakeServer:
    """One job after the other, in order of arrival, a frame at a time between looks at the socket."""

    def __init__(self, behaviour: str, pace: float):
        self.behaviour, self.pace = behaviour, pace
        self.queue: list[tuple[bytes, GenerationRequest]] = []
        self.frame = 0
        self.due = 0.0
        self.live: dict[tuple[bytes, str], GenerationRequest] = {}

    def run(self, address: str) -> None:
        self.socket = zmq.Context().socket(zmq.ROUTER)
        self.socket.curve_server = True
        self.socket.curve_secretkey = KeyRing(keys_folder()).server_secret
        self.socket.bind(address)
        print(f"listening on {self.socket.last_endpoint.decode()}", flush=True)
        while True:
            if self.socket.poll(5 if self.queue else 200):
                identity, *parts = self.socket.recv_multipart()
                self.hear(identity, parts)
            self.work()

    def send(self, identity: bytes, message) -> None:
        parts = wire.encode(message)
        if self.behaviour == "other_version":
            parts[0] = parts[0].replace(
                b"\xa7version" + bytes([messages.PROTOCOL_VERSION]), b"\xa7version\x63"
            )
        self.socket.send_multipart([identity, *parts])

    def hear(self, identity: bytes, parts: list[bytes]) -> None:
        message = wire.decode(parts, messages.CLIENT_MESSAGES)
        if isinstance(message, messages.Piece):
            if message.offset == 0:
                self.assembly = Assembly(message.stream, message.total)
            self.assembly.add(message)
            if self.assembly.whole:
                self.hear(identity, self.assembly.parts())
            elif self.assembly.hungry:
                self.send(identity, self.assembly.grant())
            return
        if isinstance(message, Hello):
            if self.behaviour == "garbage":
                self.socket.send_multipart([identity, os.urandom(300)])
                return
            if self.behaviour == "deaf" and self.queue:
                return
            self.send(identity, Welcome("fake", ENGINES, "a test", len(self.queue)))
        elif isinstance(message, Cancel):
            before = len(self.queue)
            running = bool(self.queue) and self.queue[0][1].job == message.job
            self.queue = [entry for entry in self.queue if entry[1].job != message.job]
            if running:
                self.frame = 0
            self.send(identity, (Cancelled if len(self.queue) < before else Forgotten)(message.job))
        elif isinstance(message, Resume):
            if all(request.job != message.job for _, request in self.queue):
                self.send(identity, Failed(message.job, "unknown", "There is no such job."))
                return
            self.send(identity, Accepted(message.job))
            if self.queue[0][1].job == message.job:
                self.frame = message.have
        elif isinstance(message, (LiveOpen, LivePose, LiveClose)):
            self.hear_live((identity, message.session), message)
        elif isinstance(message, Received):
            self.send(identity, Forgotten(message.job))
        else:
            if self.behaviour == "refuses":
                self.send(identity, Failed(message.job, "invalid", "The prompt is empty; write one."))
                return
            if self.behaviour == "refuses_unread":
                self.send(identity, Failed("", "invalid", "The message can't be read."))
                return
            self.send(identity, Accepted(message.job))
            self.send(identity, Queued(message.job, len(self.queue)))
            self.queue.append((identity, message))
            self.due = time.monotonic()

    def hear_live(self, key: tuple[bytes, str], message) -> None:
        """A live picture has the colour of the pose's first x."""
        identity, session = key
        if isinstance(message, LiveClose):
            self.live.pop(key, None)
        elif isinstance(message, LiveOpen):
            self.live[key] = message.request
            self.send(identity, LiveReady(session, "All is ready."))
        elif key not in self.live:
            self.send(identity, LiveEnded(session, "unknown"))
        elif self.behaviour == "live_ends":
            self.send(identity, LiveEnded(session, "worker", "The process that draws ended."))
        else:
            width, height = self.live[key].width, self.live[key].height
            picture = bytes([int(message.pose.points[0, 0]) % 256]) * (3 * width * height)
            self.send(identity, LivePicture(session, message.number, width, height, "raw", picture))

    def work(self) -> None:
        if not self.queue or time.monotonic() < self.due:
            return
        identity, request = self.queue[0]
        job = request.job
        if self.behaviour in ("mute", "deaf"):
            return
        if self.frame == 0:
            self.send(identity, Progress(job, "drawing", 0, request.num_frames, 12.0))
            self.send(identity, Preview(job, 0, np.zeros((30, 52, 3), np.uint8)))
        if self.frame == 3 and self.misbehave(identity, job):
            return
        if self.frame < request.num_frames:
            index = self.frame + (5 if self.behaviour == "skips_frames" and self.frame == 3 else 0)
            picture = self.picture(request)
            self.send(identity, Frame(job, index, request.width, request.height, "png", picture))
            self.frame += 1
        if self.frame == request.num_frames or (self.behaviour == "ends_early" and self.frame == 4):
            self.send(identity, Done(job, request.num_frames, 1.0, "All drawn."))
            self.queue.pop(0)
            self.frame = 0
        self.due = time.monotonic() + 1 / self.pace

    def picture(self, request: GenerationRequest) -> bytes:
        """A frame's file: the first frame's, or from the fourth frame on what no client should keep."""
        if self.frame >= 3 and self.behaviour == "huge_picture":
            sides = (20_000).to_bytes(4, "big") * 2
            return request.first_frame[:16] + sides + request.first_frame[24:]
        if self.frame >= 3 and self.behaviour == "fat_picture":
            return request.first_frame[:-12] + bytes(1 << 20) + request.first_frame[-12:]
        if self.frame >= 3 and self.behaviour == "deep_picture":
            return request.first_frame[:24] + b"\x10" + request.first_frame[25:]
        if self.frame >= 3 and self.behaviour == "no_picture":
            return b"MZ" + bytes(1000)
        return request.first_frame

    def misbehave(self, identity: bytes, job: str) -> bool:
        """Whether that was the end of the job."""
        if self.behaviour == "dies":
            os._exit(9)
        elif self.behaviour == "engine_fails":
            self.send(identity, Failed(job, "memory", "The engine ran out of memory; choose a smaller size."))
            self.queue.pop(0)
            self.frame = 0
            return True
        if self.behaviour == "babbles":
            self.socket.send_multipart([identity, os.urandom(2000), os.urandom(10)])
            self.socket.send_multipart([identity])
            self.socket.send_multipart([identity, *([b"x"] * 100)])
        elif self.behaviour == "bad_frame":
            parts = wire.encode(Frame(job, 3, 64, 64, "png", b"x"))
            self.socket.send_multipart([identity, parts[0]])
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("behaviour", nargs="?", default="well")
    parser.add_argument("--frames-per-second", type=float, default=1000.0)
    parser.add_argument("--address", default="tcp://127.0.0.1:0")
    arguments = parser.parse_args()
    FakeServer(arguments.behaviour, arguments.frames_per_second).run(arguments.address)
