"""What an engine is to the rest of the server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.messages import (
    EngineDescription,
    FoundPoses,
    GenerationRequest,
    PoseFinderDescription,
    PoseRequest,
    Preview,
    Progress,
)
from shared.pose import PoseSequence
from shared.sentences import SentenceError

from ..poseanything.runtime.out_of_memory import is_out_of_memory

__all__ = [
    "Engine",
    "EngineError",
    "JobCancelled",
    "LiveSession",
    "Picture",
    "PoseFinder",
    "Report",
    "is_out_of_memory",
]

Report = Callable[[str, int, int], None]
"""Told of a stage, how many of its steps are done, and how many there are; raises `JobCancelled` once the job
has been cancelled."""


class EngineError(SentenceError):
    """The engine can't serve this request. Its text is one sentence that says what is wrong and what to do.

    `code` is one of `shared.messages.Failed`'s. After one with `needs_restart` the process is replaced: what
    it computes on can't be used from it any more."""

    def __init__(self, text: str, code: str = "engine", needs_restart: bool = False, **values: Any):
        super().__init__(text, **values)
        self.code, self.needs_restart = code, needs_restart


class JobCancelled(Exception):
    """Raised inside `Engine.generate` to leave it when `cancelled()` turned true."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A finished frame: RGB uint8 [height, width, 3]. Pictures come by ascending `index`, each frame once.

    The array is handed over: it is encoded and sent while the engine goes on, which must not write to it.
    """

    index: int
    image: np.ndarray


class LiveSession(ABC):
    """Draws one pose after the other from what was prepared once. `note` is for the user."""

    note = ""

    @abstractmethod
    def draw(self, pose: PoseSequence, camera_motion: np.ndarray | None) -> np.ndarray:
        """RGB uint8 [height, width, 3] of a single frame's pose of the limbs it was opened with, and of a
        background that has moved by `camera_motion` [3, 3] since the opening. The array is handed over."""


class Engine(ABC):
    """Makes clips. It lives in the worker process: made once, loaded before its first job, asked for many.

    engine = find_engine("draft")()
    for _ in engine.load():
        pass
    for event in engine.generate(request, cancelled=lambda: False):
        if isinstance(event, Picture):
            show(event.image)
    """

    @classmethod
    @abstractmethod
    def describe(cls) -> EngineDescription:
        """What it is and whether it can run here. Asked when the server starts and every few seconds while it
        is idle, so it must be cheap, and neither it nor its module may import anything heavy."""

    def load(self) -> Iterator[Progress]:
        """Bring weights to where they are needed; called once before the first `generate`.

        The `job` of its progress may be anything: the host puts in the one that waits. Raises `EngineError`.
        """
        return iter(())

    @abstractmethod
    def generate(
        self, request: GenerationRequest, cancelled: Callable[[], bool]
    ) -> Generator[Progress | Preview | Picture, None, str | None]:
        """Make the clip of a request, yielding pictures as soon as they are final.

        Calls `cancelled()` between steps (at least once a second of work) and raises `JobCancelled` once it
        is true. Raises `EngineError` for what can't be served; anything else counts as a fault of the engine.
        `MemoryError` and CUDA's out-of-memory are reported as such by the host. After any of these but
        `EngineError` and `JobCancelled` the process is replaced, as its memory and devices may be in any
        state. The value that it returns is a note for the user. `seconds_left` of progress may be None: the
        host then estimates it.
        """

    def takes_drawings(self, options: Mapping[str, Any]) -> bool:
        """Whether with these options it can be shown pictures of poses as they are, by a method `make` that
        takes a `SamplingRequest`; else it needs limbs. Asked after `load`."""
        return False

    def open_live(self, request: GenerationRequest) -> LiveSession:
        """Prepare a live session, in another thread than others draw in; only asked of an engine that
        describes itself as `live`. The request is that of `shared.messages.LiveOpen`. Raises `EngineError`.
        """
        raise EngineError("This engine makes no live pictures; choose another engine.", code="invalid")


class PoseFinder(ABC):
    """Finds the poses of filmed subjects. It lives in the worker process, made anew for each job."""

    @classmethod
    @abstractmethod
    def describe(cls) -> PoseFinderDescription:
        """As `Engine.describe`: cheap, and asked often."""

    @abstractmethod
    def find(self, request: PoseRequest, report: Report) -> FoundPoses:
        """The poses of the subject, or its mask where there is a single picture.

        Calls `report` after each step (at least once a second of work). Raises `EngineError` with a sentence
        where nothing is found; anything else counts as a fault, as of an engine.
        """
