"""One request from its arrival to its ending."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

from shared import wire
from shared.messages import (
    JOBS,
    Cancelled,
    Done,
    Failed,
    FoundPoses,
    GenerationRequest,
    PoseRequest,
    Preview,
    Progress,
)
from shared.sentences import Sentence, say

from ..engines import find_pose_finder
from ..engines.base import EngineError, JobCancelled, Picture, is_out_of_memory
from .delivery import Delivery, EngineFault
from .host import EngineHost
from .link import Sender, WorkItem
from .time_left import TimeLeft

log = logging.getLogger(__name__)

TELL_AFTER = 0.2
"""Seconds between two words on how far the search for poses is."""


@dataclass(frozen=True)
class Ending:
    """The last message of a job. After one with `needs_restart` this process can't be trusted with
    another."""

    message: Done | FoundPoses | Failed | Cancelled
    needs_restart: bool = False


def run(host: EngineHost, item: WorkItem, link: Sender, encoders: Executor) -> Ending:
    """Serve a request, sending what the engine makes, and say how it ended."""
    try:
        request = wire.decode(item.parts, JOBS)
        if isinstance(request, PoseRequest):
            return Ending(_find_poses(request, item, link))
        return Ending(_generate(host, request, item, link, encoders))
    except JobCancelled:
        return Ending(Cancelled(job=item.job))
    except EngineError as error:
        failed = Failed(job=item.job, code=error.code, message=str(error))
        return Ending(failed, error.needs_restart)
    except Exception as error:  # by the contract of engines, a fault of theirs that ends their process
        log.exception("Job %r ended in a fault", item.job)
        if is_out_of_memory(error):
            message = say("Memory ran out; choose a smaller size or fewer frames, or close other programs.")
            return Ending(Failed(job=item.job, code="memory", message=message), needs_restart=True)
        return Ending(Failed(job=item.job, code="engine", message=blame(error)), needs_restart=True)


def blame(error: Exception) -> Sentence:
    """What a client is told of a fault of an engine's."""
    first_line = str(error).partition("\n")[0][:300]
    return say(
        "The engine has a fault ({fault}); report it with the server's log.",
        fault=f"{type(error).__name__}: {first_line}",
    )


def _find_poses(request: PoseRequest, item: WorkItem, link: Sender) -> FoundPoses:
    time_left, told = TimeLeft(), 0.0

    def report(stage: str, step: int, total: int) -> None:
        nonlocal told
        if item.cancelled.is_set():
            raise JobCancelled
        now = time.monotonic()
        progress = Progress(job=item.job, stage=stage, step=step, total=total)
        left = time_left(progress, now)
        if now - told > TELL_AFTER or step in (0, total):
            told = now
            link.send(dataclasses.replace(progress, seconds_left=left))

    return find_pose_finder()().find(request, report)


def _generate(
    host: EngineHost, request: GenerationRequest, item: WorkItem, link: Sender, encoders: Executor
) -> Done:
    started = time.monotonic()
    with Delivery(item, request, link, encoders) as delivery:
        time_left = TimeLeft()

        def deliver(event: Progress | Preview | Picture) -> None:
            if isinstance(event, Progress):
                left = time_left(event, time.monotonic())
                event = dataclasses.replace(event, job=item.job, seconds_left=left)
            delivery.put(event)

        _follow(host.loading(request.engine), deliver, item.cancelled.is_set)
        engine = host[request.engine]
        note = _follow(engine.generate(request, item.cancelled.is_set), deliver, item.cancelled.is_set)
    if delivery.frames != request.num_frames:
        raise EngineFault(f"{delivery.frames} of {request.num_frames} frames were made")
    seconds = time.monotonic() - started
    return Done(job=item.job, num_frames=delivery.frames, seconds=seconds, note=str(note or ""))


def _follow(events: Iterator, deliver: Callable, cancelled: Callable[[], bool]) -> object:
    """Deliver all events; returns what the iterator returns. Raises `JobCancelled`, if need be for it."""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        if cancelled():
            raise JobCancelled
        deliver(event)
