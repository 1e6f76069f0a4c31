"""Engines that behave in every way an engine can: well, slowly, wrongly and fatally."""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass

import numpy as np

from inference_server.engines.base import Engine, EngineError, JobCancelled, LiveSession, Picture
from shared.engines import EngineDescription, describe_options, option
from shared.messages import Preview, Progress

HERE = "tests.server.engines"
ENGINES = {
    "plain": f"{HERE}:Plain",
    "slow": f"{HERE}:Slow",
    "fussy": f"{HERE}:Fussy",
    "broken": f"{HERE}:Broken",
    "fatal": f"{HERE}:Fatal",
    "deaf": f"{HERE}:Deaf",
    "living": f"{HERE}:Living",
    "missing": f"{HERE}_that_do_not_exist:Missing",
}


def colour(index: int) -> tuple[int, int, int]:
    """The colour of `Plain`'s frame `index`."""
    return index % 256, 7 * index % 256, 200


@dataclass(frozen=True)
class Options:
    pause: float = option(0.0, "Pause", "Seconds a frame takes")
    trace: str = option("", "Trace", "A file that grows by a byte with each frame made")
    until: str = option("", "Until", "A file without which no second frame is made")
    how: str = option("", "How", "What `Broken` and `Fatal` do")
    model: str = option("", "Model", "What must be loaded", loads=True)
    tiles: int = option(1, "Tiles", "Nothing", minimum=1, maximum=4)


class Plain(Engine):
    """Every frame of one colour, with progress and a preview."""

    ABOUT: dict = {}

    @classmethod
    def describe(cls):
        return EngineDescription(
            name=cls.__name__.lower(),
            label=cls.__name__,
            summary="A test.",
            options=describe_options(Options),
            **{"neural": False} | cls.ABOUT,
        )

    def generate(self, request, cancelled):
        options = request.engine_options
        pause, trace, until = (
            options.get("pause", 0),
            options.get("trace") or os.devnull,
            options.get("until"),
        )
        image = np.empty((request.height, request.width, 3), np.uint8)
        for index in range(request.num_frames):
            if cancelled():
                raise JobCancelled
            image[:] = colour(index)
            with open(trace, "ab") as file:
                file.write(b".")
            yield Progress(job=request.job, stage="drawing", step=index + 1, total=request.num_frames)
            if index == 0:
                yield Preview(job=request.job, index=0, image=image[::8, ::8].copy())
            yield Picture(index, image.copy())
            time.sleep(pause)
            while until and not os.path.exists(until):
                time.sleep(0.02)
        return f"{os.getpid()}"


class Slow(Plain):
    """Takes a while to load, and says so."""

    ABOUT = {"neural": True}

    def load(self):
        for step in (1, 2):
            time.sleep(0.1)
            yield Progress(job="-", stage="loading", step=step, total=2)


class Fussy(Plain):
    """Takes few sizes and lengths."""

    ABOUT = {"size_multiple": 32, "frame_step": 4, "max_frames": 83}


class Broken(Plain):
    """Breaks its contract, or tells what it can't do."""

    def generate(self, request, cancelled):
        yield Picture(0, np.zeros((request.height, request.width, 3), np.uint8))
        match request.engine_options["how"]:
            case "can't":
                raise EngineError("The prompt is too long for this engine; shorten it.", code="invalid")
            case "lost":
                raise EngineError("The card stopped answering; make the clip again.", needs_restart=True)
            case "raise":
                raise ValueError("seven is not eight")
            case "memory":
                np.empty(1 << 60, np.uint8)
            case "short":
                return
            case "order":
                yield Picture(3, np.zeros((request.height, request.width, 3), np.uint8))
            case "shape":
                yield Picture(1, np.zeros((8, 8, 3), np.uint8))


class Fatal(Plain):
    """Takes its process with it."""

    def generate(self, request, cancelled):
        yield Picture(0, np.zeros((request.height, request.width, 3), np.uint8))
        time.sleep(0.2)
        match request.engine_options["how"]:
            case "segfault":
                ctypes.string_at(0)
            case "exit":
                os._exit(3)
            case "kill":
                os.kill(os.getpid(), 9)


class Deaf(Plain):
    """Never looks whether it was cancelled."""

    def generate(self, request, cancelled):
        yield Progress(job=request.job, stage="denoising", step=0, total=1)
        time.sleep(3600)


class Living(Plain):
    """Offers live sessions, whose pictures have the colour of the pose's first x."""

    ABOUT = {"live": True}

    def open_live(self, request):
        if request.engine_options.get("how") == "can't":
            raise EngineError("Nothing moves in this picture; choose another one.")
        return Colours(request)


class Colours(LiveSession):
    """Writes a byte into its trace when it is opened, and takes it back when it is freed."""

    note = "In colour."

    def __init__(self, request):
        self.size, self.options = (request.height, request.width), request.engine_options
        self.trace = self.options.get("trace", os.devnull)
        with open(self.trace, "ab") as file:
            file.write(b".")

    def __del__(self):
        if self.trace != os.devnull:
            os.truncate(self.trace, os.path.getsize(self.trace) - 1)

    def draw(self, pose, camera_motion):
        time.sleep(self.options.get("pause", 0))
        x = int(pose.points[0, 0])
        if x == 13:
            raise ValueError("thirteen")
        if x == 14:
            os.kill(os.getpid(), 9)
        shift = 0 if camera_motion is None else int(camera_motion[0, 2])
        return np.full((*self.size, 3), x + shift, np.uint8)


class Stillborn(Plain):
    """Can't even be asked what it is."""

    @classmethod
    def describe(cls):
        os._exit(4)
