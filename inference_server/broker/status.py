"""How the server is, as one user may see it: the own jobs in full, of others' whose they are and how far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from shared import wire
from shared.messages import (
    MAX_LISTED,
    Done,
    FoundPoses,
    GenerationRequest,
    JobStatus,
    PoseRequest,
    Status,
    UserStatus,
    WorkerStatus,
)

from .. import __version__
from .frontend import Client
from .queue import FairQueue, PendingRequest
from .slots import WorkerSlot

Who = Callable[[bytes], str]
"""The name of a user."""
_DONE = (Done.__name__, FoundPoses.__name__)


def describe(request: GenerationRequest | PoseRequest) -> dict[str, Any]:
    """What is remembered of a request, for those who look."""
    if isinstance(request, PoseRequest):
        return {"width": request.width, "height": request.height, "fps": request.fps}
    prompt = " ".join(request.prompt.split())
    return {
        "num_frames": request.num_frames,
        "width": request.width,
        "height": request.height,
        "fps": request.fps,
        "prompt": prompt[:128],
    }


def survey(
    jobs: Sequence[PendingRequest],
    queue: FairQueue,
    slots: Sequence[WorkerSlot],
    clients: Iterable[Client],
    stored: tuple[int, int],
    may_see: Callable[[bytes], bool],
    who: Who,
    now: float,
    most: int,
) -> Status:
    """`stored` are the bytes on the disk and their limit; `may_see` says whose jobs are shown in full."""
    position = {
        pending: place for place, pending in enumerate(queue, 1 if any(s.running for s in slots) else 0)
    }
    ordered = sorted(jobs, key=lambda pending: (position.get(pending, -1), pending.number))
    heard: dict[bytes, float] = {}
    for client in clients:
        if not (client.gone or client.away):
            heard[client.user] = max(client.heard, heard.get(client.user, 0.0))
    users = {pending.user for pending in jobs} | set(heard)
    return Status(
        server_version=__version__,
        jobs=tuple(
            _job(pending, position.get(pending, 0), may_see(pending.user), who) for pending in ordered[:most]
        ),
        workers=describe_workers(slots, may_see, who),
        users=tuple(
            UserStatus(
                user=who(user),
                jobs=sum(pending.user == user for pending in jobs),
                silent=max(0.0, now - heard[user]) if user in heard else None,
            )
            for user in sorted(users)[:MAX_LISTED]
        ),
        more=max(0, len(jobs) - most),
        kept=stored[0],
        quota=stored[1],
    )


def _job(pending: PendingRequest, position: int, seen: bool, who: Who) -> JobStatus:
    about: Mapping[str, Any] = pending.about
    state, note = "running" if pending.slot else "waiting", ""
    if pending.ending is not None:
        ending = wire.read_header(pending.ending)  # what else there is may be a whole video's masks
        state = "done" if ending["type"] in _DONE else "failed"
        note = ending.get("message", ending.get("note", ""))
    return JobStatus(
        job=pending.job if seen else "",
        user=who(pending.user),
        engine=pending.engine,
        state=state,
        frames=pending.frames,
        **{name: about.get(name, 0) for name in ("num_frames", "width", "height", "fps", "submitted")},
        prompt=about.get("prompt", "") if seen else "",
        position=position,
        note=note if seen else "",
    )


def describe_workers(
    slots: Sequence[WorkerSlot], may_see: Callable[[bytes], bool], who: Who
) -> tuple[WorkerStatus, ...]:
    """What each place does and how much memory it holds; jobs are named to those who may see them."""
    return tuple(_worker(slot, may_see, who) for slot in slots)


def _worker(slot: WorkerSlot, may_see: Callable[[bytes], bool], who: Who) -> WorkerStatus:
    process, pending = slot.process, slot.running
    ready = process is not None and process.reported
    doing: dict[str, Any] = {}
    if pending is not None:
        progress = slot.progress
        doing = {
            "user": who(pending.user),
            "job": pending.job if may_see(pending.user) else "",
            **({"stage": progress.stage, "step": progress.step, "total": progress.total} if progress else {}),
        }
    return WorkerStatus(
        name=slot.name,
        device=slot.device,
        state="running" if pending else "idle" if ready else "starting",
        **doing,
        **(process.vitals._asdict() if process else {}),
    )
