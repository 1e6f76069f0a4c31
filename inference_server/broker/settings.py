"""What a broker can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shared.address import DEFAULT_ADDRESS
from shared.keys import keys_folder

from ..engines import ENGINES


@dataclass(frozen=True)
class Settings:
    """Times are in seconds.

    keys: the folder with the server's keys and of those that it lets in.
    cards: CUDA's numbers of the graphics cards to use, with a worker process for each; none is the first card
        that there is, or the processor.
    workers: how many processes make clips side by side where no cards are named.
    ray: the address of a Ray cluster that runs the engines of all workers; none is this machine.
    jobs: the folder that keeps jobs, so that they outlive the server; without one they end with it.
    jobs_quota: bytes of requests and frames kept at most.
    keep_ended: what ended so long ago and was never fetched is dropped.
    client_timeout: a client that has said nothing for so long is gone; its jobs go on without it.
    cancel_grace: a cancelled engine that has not stopped by then is ended together with its process.
    start_timeout: a worker process that has not reported by then is ended and started again.
    hung_timeout: so is one that has given no sign of life for so long.
    stop_timeout: a server that is told to stop has ended by then, whatever holds it.
    """

    address: str = DEFAULT_ADDRESS
    engines: Mapping[str, str] = field(default_factory=lambda: ENGINES)
    keys: Path = field(default_factory=keys_folder)
    cards: Sequence[str] = ()
    workers: int = 1
    ray: str = ""
    jobs: Path | None = None
    jobs_quota: int = 32 << 30
    keep_ended: float = 7 * 86400.0
    max_connections: int = 512
    max_jobs: int = 4096
    max_jobs_per_user: int = 1024
    client_timeout: float = 60.0
    cancel_grace: float = 20.0
    start_timeout: float = 120.0
    hung_timeout: float = 15.0
    stop_timeout: float = 25.0
