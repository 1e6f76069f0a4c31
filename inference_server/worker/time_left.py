"""How long a job takes yet."""

from __future__ import annotations

from shared.messages import Progress


class TimeLeft:
    """Estimates from the pace so far.

    A clip of several windows goes back and forth between its stages. The stage that is not finished yet gives
    the time, with all that comes between its steps; a stage that is left unfinished is forgotten at the time
    at which it should have ended.
    """

    def __init__(self):
        self._stage, self._finished, self._end = "", True, None
        self._first = self._last = self._total = 0
        self._since = 0.0

    def __call__(self, progress: Progress, now: float) -> float | None:
        """Seconds, at the time `now`; the engine's own estimate where it gives one, None where there is
        nothing to tell from."""
        if progress.seconds_left is not None:
            return progress.seconds_left
        if progress.stage != self._stage and not self._finished and self._end is not None and now < self._end:
            return self._end - now
        anew = progress.stage != self._stage or progress.step < self._last or progress.total != self._total
        if anew:
            self._first, self._since = progress.step, now
        self._stage, self._last, self._total = progress.stage, progress.step, progress.total
        self._finished = progress.step >= progress.total
        steps = progress.step - self._first
        left = (now - self._since) / steps * max(0, progress.total - progress.step) if steps > 0 else None
        self._end = None if left is None else now + left
        return left
