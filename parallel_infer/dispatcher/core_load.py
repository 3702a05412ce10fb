"""How many cores the stages have kept at work lately, by what they report. No clock: the time is handed in."""

from __future__ import annotations

import math

_MEMORY = 1.0  # seconds; what was done so long ago counts for 1/e of what is done now


class Load:
    """A running average of seconds of work per second, of all stages together."""

    def __init__(self) -> None:
        self._cores = 0.0
        self._at = 0.0

    def add(self, seconds: float, now: float) -> None:
        """So many seconds of work were reported, times the cores that each took."""
        self._cores = self.cores(now) + seconds / _MEMORY
        self._at = now

    def cores(self, now: float) -> float:
        """Cores at work; above the number of cores where processes wait for one."""
        return self._cores * math.exp((self._at - now) / _MEMORY)
