"""Which frames of a source are looked at, and when. No I/O; the time is handed in."""

from __future__ import annotations

import math
from typing import Protocol

USUAL_FPS = 25.0  # frames per second of a recording that does not say
_EARLY = 0.25  # part of an interval by which a live frame may come too early: cameras are not exact


class Thinning(Protocol):
    """Leaves out frames so that no more than some per second remain."""

    def keeps(self, frame: int, now: float) -> bool: ...


class ByNumber:
    """For recordings: by the place of the frame in it."""

    def __init__(self, wanted: float, fps: float) -> None:
        self._step = min(1.0, wanted / fps)

    def keeps(self, frame: int, now: float) -> bool:
        return frame == 0 or math.floor(frame * self._step) != math.floor((frame - 1) * self._step)


class ByTime:
    """For live sources: by when the frame came."""

    def __init__(self, wanted: float) -> None:
        self._interval = 1 / wanted
        self._due: float | None = None

    def keeps(self, frame: int, now: float) -> bool:
        if self._due is None:
            self._due = now
        if now < self._due - _EARLY * self._interval:
            return False
        # What came late is made up for by one frame at most, so that the rate is right on the whole.
        self._due = max(self._due, now - self._interval) + self._interval
        return True


class Clock:
    """When the frames of a recording that plays like a camera are due."""

    def __init__(self, fps: float, start: float) -> None:
        self._fps = fps or USUAL_FPS
        self._start = start

    def due(self, frame: int) -> float:
        return self._start + frame / self._fps
