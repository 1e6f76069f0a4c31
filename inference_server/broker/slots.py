"""Where jobs are made: a slot for each worker process, which is started anew whenever it ends.

One slot's process can hang or die without the others' noticing. A slot is tied to a graphics card or to none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import zmq

from shared.engines import EngineDescription
from shared.messages import PoseFinderDescription, Progress, Welcome
from shared.sentences import say

from . import ServerError
from .process import CANT_START, WorkerProcess, explain_exit
from .queue import POSES, FairQueue, PendingRequest
from .settings import Settings

log = logging.getLogger(__name__)

MAX_FAILED_STARTS = 3
"""Of the very first workers; later ones are tried again for as long as the server runs."""
LONGEST_PAUSE = 30.0
"""Seconds between two tries to start a worker, at most."""
MAX_PASSED = 3
"""So many jobs may go before one whose model is loaded elsewhere, where it waits for its turn."""
MOST_UNKEPT = 16 << 20
"""Bytes of frames that may be on their way from a process into the store."""
LOOK_AHEAD = 64
"""Of the jobs that wait, so many are looked at for one that suits a slot."""


@dataclass(eq=False)
class WorkerSlot:
    """A worker process and what it does now.

    name: for logs and users, such as "card 0".
    environment: what its process has set beyond the server's own environment.
    running: its job, if it has one.
    handed: whether the process has been given the job.
    unkept: bytes of frames that are just being kept; the process is not read from while they are many.
    kill_at: when the process is ended for not obeying a cancel.
    progress: the last that was heard of its job.
    models: for each engine, what its last job here had loaded.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    process: WorkerProcess | None = None
    running: PendingRequest | None = None
    handed: bool = False
    unkept: int = 0
    kill_at: float | None = None
    engines: dict[str, EngineDescription] = field(default_factory=dict)
    device: str = ""
    pose_finder: PoseFinderDescription | None = None
    models: dict[str, object] = field(default_factory=dict)
    progress: Progress | None = None
    failed_starts: int = 0
    start_at: float = 0.0

    @property
    def idle(self) -> bool:
        return self.process is not None and self.process.idle

    @property
    def idle_soon(self) -> bool:
        """Whether its job has ended, and its process is about to say that it is idle."""
        process = self.process
        return process is not None and process.reported and not process.idle and self.running is None

    def describe(self, welcome: Welcome) -> None:
        """The process tells what it can do, and that it is idle unless it is at a job."""
        assert self.process is not None
        self.engines = {engine.name: engine for engine in welcome.engines}
        self.device, self.pose_finder = welcome.device, welcome.pose_finder
        self.process.reported, self.process.idle = True, self.running is None
        self.failed_starts = 0

    def can_make(self, pending: PendingRequest) -> bool:
        if pending.engine == POSES:
            return self.pose_finder is not None and self.pose_finder.ready
        engine = self.engines.get(pending.engine)
        return engine is not None and engine.ready

    def has_loaded(self, pending: PendingRequest) -> int:
        """How much of what a job needs is in memory here: 2 is all, 1 its engine with another model."""
        engine = self.engines.get(pending.engine)
        if pending.engine == POSES or (engine is not None and not engine.neural):
            return 2
        if pending.engine not in self.models:
            return 0
        return 2 if self.models[pending.engine] == pending.model else 1

    @property
    def readable(self) -> bool:
        """Whether the store keeps up with what the process makes."""
        return self.process is not None and self.unkept < MOST_UNKEPT

    def begin(self, pending: PendingRequest) -> None:
        """A job is made here next; it is not handed over yet."""
        assert self.process is not None
        self.process.idle, self.handed, self.progress = False, False, None
        self.running, pending.slot = pending, self
        self.models[pending.engine] = pending.model

    def end(self) -> PendingRequest | None:
        """Its job is over, here at least; returns that job."""
        pending, self.running = self.running, None
        self.kill_at = None
        if pending is not None:
            pending.slot = None
        return pending


class Crew:
    """All slots, and the care for their processes."""

    def __init__(self, context: zmq.Context, settings: Settings, folder: str, on_exit: Callable[[], None]):
        """`folder` is for the processes' sockets; `on_exit` is called, in another thread, when one ended."""
        self._context, self._settings, self._folder, self._on_exit = context, settings, folder, on_exit
        self.slots = [
            WorkerSlot(f"card {card}", {"CUDA_VISIBLE_DEVICES": card, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
            for card in settings.cards
        ] or [WorkerSlot(f"worker {number}") for number in range(settings.workers)]

    @property
    def running(self) -> list[PendingRequest]:
        return [slot.running for slot in self.slots if slot.running]

    @property
    def engines(self) -> dict[str, EngineDescription]:
        """What can be asked for; of an engine's descriptions that of a slot where it is ready."""
        offered: dict[str, EngineDescription] = {}
        for slot in self.slots:
            for name, engine in slot.engines.items():
                if name not in offered or (engine.ready and not offered[name].ready):
                    offered[name] = engine
        return offered

    @property
    def pose_finder(self) -> PoseFinderDescription | None:
        """What finds poses in videos; that of a slot where it is ready."""
        found = [slot.pose_finder for slot in self.slots if slot.pose_finder is not None]
        return next((finder for finder in found if finder.ready), found[0] if found else None)

    @property
    def device(self) -> str:
        """What the slots run on, each kind once."""
        return "; ".join(dict.fromkeys(slot.device for slot in self.slots if slot.device))[:256]

    @property
    def restless(self) -> bool:
        """Whether something has to be done soon though nobody says a word."""
        return any(slot.kill_at or not slot.process for slot in self.slots)

    def keep(self, now: float) -> None:
        """See that there is a process in every slot, and that it does what it is told."""
        for slot in self.slots:
            process = slot.process
            if process is None:
                if now >= slot.start_at:
                    self._start(slot, now)
            elif slot.running and slot.kill_at and now >= slot.kill_at:
                log.warning("Job %r does not stop; ending the process of its engine", slot.running.job)
                slot.kill_at = None
                process.kill()
            elif not process.reported and now - process.started > self._settings.start_timeout:
                log.warning("The engine's process (%s) does not get ready; ending it", slot.name)
                process.kill()
                process.started = now
            elif process.reported and now - process.heard > self._settings.hung_timeout:
                log.warning("The engine's process (%s) gives no sign of life; ending it", slot.name)
                seconds = self._settings.hung_timeout
                process.kill(say("it gave no sign of life for {seconds:.0f} s", seconds=seconds))
                process.heard = now

    def _start(self, slot: WorkerSlot, now: float) -> None:
        try:
            slot.process = WorkerProcess(
                self._context,
                self._settings.engines,
                self._folder,
                self._on_exit,
                slot.environment,
                ray=self._settings.ray,
                silence=0.8 * self._settings.hung_timeout,  # before it seems to hang itself
            )
        except CANT_START as error:
            slot.failed_starts += 1
            pause = min(0.5 * 2**slot.failed_starts, LONGEST_PAUSE)
            slot.start_at = now + pause
            log.error(
                "The engine's process (%s) can't be started (%s); trying again in %.0f s",
                slot.name,
                error,
                pause,
            )

    def bury(self, slot: WorkerSlot, now: float) -> tuple[str, str]:
        """The process of a slot has ended: why, and what the user can do. Raises `ServerError` where none has
        ever got ready, and that by a fault of its own."""
        process = slot.process
        assert process is not None and process.exit_code is not None
        slot.process = None
        slot.models.clear()
        process.close()
        reason, remedy = explain_exit(process.exit_code)
        reason = process.killed_for or reason
        if not process.reported:
            slot.failed_starts += 1
            slot.start_at = now + min(0.5 * 2**slot.failed_starts, LONGEST_PAUSE)
            faulty = process.exit_code >= 0 and not any(each.engines for each in self.slots)
            if faulty and slot.failed_starts >= MAX_FAILED_STARTS:
                raise ServerError(
                    "The engine's process can't start ({reason}); see what it says above.", reason=reason
                )
        return reason, remedy

    def close(self) -> None:
        """End all processes, kindly at first."""
        processes = [slot.process for slot in self.slots if slot.process]
        for process in processes:
            process.dismiss()
        deadline = time.monotonic() + 2.0
        for process in processes:
            process.close(max(0.0, deadline - time.monotonic()))


def choose(queue: FairQueue, slots: Iterable[WorkerSlot]) -> tuple[PendingRequest, WorkerSlot] | None:
    """The job that an idle slot begins next, and that slot; None when no job waits that one can make.

    The order is the queue's. A job goes where its model is loaded. If that slot is busy, others that suit an
    idle one go before it, `MAX_PASSED` at most; if none does, it is made where its model must be loaded,
    unless that slot is just between two jobs.
    """
    slots = list(slots)
    idle = [slot for slot in slots if slot.idle]
    if not idle:
        return None
    passed: list[tuple[PendingRequest, WorkerSlot]] = []
    for pending in islice(queue, LOOK_AHEAD):
        slot = _best(pending, idle, slots)
        if slot is None:
            continue
        better = [other for other in slots if other.has_loaded(pending) > slot.has_loaded(pending)]
        if not better or pending.passed >= MAX_PASSED:
            for earlier, _ in passed:
                earlier.passed += 1
            return pending, slot
        if not any(other.idle_soon for other in better):
            passed.append((pending, slot))
    return passed[0] if passed else None


def _best(
    pending: PendingRequest, idle: Sequence[WorkerSlot], slots: Sequence[WorkerSlot]
) -> WorkerSlot | None:
    able: Sequence[WorkerSlot] = [slot for slot in idle if slot.can_make(pending)]
    if not able and all(slot.engines and not slot.can_make(pending) for slot in slots):
        able = idle  # whose engine says what keeps it
    return max(able, key=lambda slot: slot.has_loaded(pending), default=None)
