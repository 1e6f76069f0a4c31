"""A live session in the client's thread: what waits to be sent, and what has been."""

from __future__ import annotations

import time
from collections import deque

from ..shared.messages import LiveOpen, LivePose

IN_FLIGHT = 2
"""Poses that may be on their way at once: while one is drawn the next is there already, and none piles up."""
PATIENCE = 2.0
"""Seconds after which an answer is not waited for any more."""


class LiveView:
    """Of the poses that wait only the latest is kept. The opening is kept too: a server that comes back is
    asked anew."""

    def __init__(self, opening: LiveOpen):
        self.opening = opening
        self.opened = self.ready = False
        self.pose: LivePose | None = None
        self._flying: deque[int] = deque()
        self._flew = 0.0

    def due(self) -> LivePose | None:
        """The pose to send now."""
        if self._flying and time.monotonic() - self._flew > PATIENCE:
            self._flying.clear()
        return self.pose if self.ready and len(self._flying) < IN_FLIGHT else None

    def sent(self, pose: LivePose) -> None:
        self.pose = None
        self._flying.append(pose.number)
        self._flew = time.monotonic()

    def answered(self, number: int) -> None:
        while self._flying and self._flying[0] <= number:
            self._flying.popleft()

    def interrupt(self) -> None:
        """The connection is gone."""
        self.opened = self.ready = False
        self._flying.clear()
