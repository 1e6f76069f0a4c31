"""One job from its request to its ending."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

from shared import wire
from shared.messages import Cancelled, Done, Failed, GenerationRequest, Preview, Progress

from ..engines.base import EngineError, JobCancelled, Picture
from ..out_of_memory import is_out_of_memory
from .delivery import Delivery, EngineFault
from .host import EngineHost
from .link import Job, Link

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ending:
    """The last message of a job. After one with `needs_restart` this process can't be trusted with another."""

    message: Done | Failed | Cancelled
    needs_restart: bool = False


def run_job(host: EngineHost, job: Job, link: Link, encoders: Executor) -> Ending:
    """Run a job, sending what the engine makes, and say how it ended."""
    try:
        return Ending(_generate(host, job, link, encoders))
    except JobCancelled:
        return Ending(Cancelled(job=job.id))
    except EngineError as error:
        return Ending(Failed(job=job.id, code=error.code, message=str(error)[:2048]))
    except Exception as error:  # by the contract of engines, a fault of theirs that ends their process
        log.exception("Job %r ended in a fault", job.id)
        if is_out_of_memory(error):
            message = "Memory ran out; choose a smaller size or fewer frames, or close other programs."
            return Ending(Failed(job=job.id, code="memory", message=message), needs_restart=True)
        first_line = str(error).partition("\n")[0][:300]
        fault = f"{type(error).__name__}: {first_line}"
        message = f"The engine has a fault ({fault}); report it with the server's log."
        return Ending(Failed(job=job.id, code="engine", message=message), needs_restart=True)


def _generate(host: EngineHost, job: Job, link: Link, encoders: Executor) -> Done:
    started = time.monotonic()
    request = wire.decode([part.buffer for part in job.parts], (GenerationRequest,))
    with Delivery(job, request, link, encoders) as delivery:
        estimate = Estimate()

        def deliver(event: Progress | Preview | Picture) -> None:
            if isinstance(event, Progress):
                event = dataclasses.replace(event, job=job.id, seconds_left=estimate(event, time.monotonic()))
            delivery.put(event)

        _follow(host.loading(request.engine), deliver, job.cancelled.is_set)
        engine = host[request.engine]
        note = _follow(engine.generate(request, job.cancelled.is_set), deliver, job.cancelled.is_set)
    if delivery.frames != request.num_frames:
        raise EngineFault(f"{delivery.frames} of {request.num_frames} frames were made")
    seconds = time.monotonic() - started
    return Done(job=job.id, num_frames=delivery.frames, seconds=seconds, note=str(note or "")[:1024])


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


class Estimate:
    """How many seconds the current stage has left, from how fast it went so far."""

    def __init__(self):
        self._stage = self._first = self._since = None

    def __call__(self, progress: Progress, now: float) -> float | None:
        """The engine's own estimate if it gives one; None where there is nothing to tell from."""
        if progress.stage != self._stage:
            self._stage, self._first, self._since = progress.stage, progress.step, now
        if progress.seconds_left is not None:
            return progress.seconds_left
        steps = progress.step - self._first
        if steps <= 0:
            return None
        return max(0.0, (now - self._since) / steps * (progress.total - progress.step))
