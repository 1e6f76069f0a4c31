"""What a broker can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.address import DEFAULT_ADDRESS

from ..engines import ENGINES


@dataclass(frozen=True)
class Settings:
    """Times are in seconds.

    client_timeout: a client that has said nothing for so long is gone, and its jobs end.
    cancel_grace: a cancelled engine that has not stopped by then is ended together with its process.
    stall_timeout: while others wait, a running job ends when its client has taken nothing for so long.
    start_timeout: a worker process that has not reported by then is ended and started again.
    """

    address: str = DEFAULT_ADDRESS
    engines: Mapping[str, str] = field(default_factory=lambda: ENGINES)
    max_jobs: int = 256
    max_jobs_per_client: int = 64
    max_queue_bytes: int = 1 << 30
    client_timeout: float = 60.0
    cancel_grace: float = 20.0
    stall_timeout: float = 30.0
    start_timeout: float = 120.0
