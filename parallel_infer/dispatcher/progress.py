"""How fast a model gets its work done, as far as the last seconds show it. No clock: the time is handed in.

An estimate that refuses jobs must not be moved by one observation, by a start, or by a pause of the machine. What is
kept is therefore not an average but the best that was seen lately: the machine has shown that it can do that. Seconds
in which it stood still are in no estimate, and what is older than `MEMORY` counts for nothing.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

MEMORY = 10.0  # seconds for which a stretch counts
_STRETCH = 0.5  # seconds of work that make one
_RUNS = 4  # batches that make one: of fewer the rate is a matter of luck
_ENOUGH = 2.0  # seconds of work before anything is said: the first ones of a server are like no others
_SOME = 2  # stretches of it, in which no single event decides


class _Stretch(NamedTuple):
    ended: float
    seconds: float
    rate: float


class Progress:
    """Jobs per second in stretches of time through which others waited all the while."""

    def __init__(self) -> None:
        self._stretches: deque[_Stretch] = deque()
        self._best: float | None = 0.0  # of them; None: to be found anew
        self._ran_at = 0.0  # when a batch was last done
        self._backlog = False  # whether jobs waited then
        self._seconds = 0.0  # of the stretch that is under way
        self._jobs = 0
        self._runs = 0

    def ran(self, size: int, backlog: bool, now: float) -> None:
        """A batch is done; `backlog`: others wait, so that the time until the next one is all work."""
        if self._backlog:
            self._seconds += now - self._ran_at
            self._jobs += size
            self._runs += 1
        self._ran_at, self._backlog = now, backlog
        if self._seconds >= _STRETCH and self._runs >= _RUNS:
            self._stretches.append(_Stretch(now, self._seconds, self._jobs / self._seconds))
            self._best = None
            self.restart()
            self._ran_at, self._backlog = now, backlog

    def restart(self) -> None:
        """What is under way says nothing: a worker died, or nobody ran."""
        self._backlog = False
        self._seconds, self._jobs, self._runs = 0.0, 0, 0

    def best(self, now: float) -> float:
        """Jobs per second in the best stretch of the last `MEMORY` seconds; 0 where too little was seen in them."""
        while self._stretches and self._stretches[0].ended < now - MEMORY:
            self._stretches.popleft()
            self._best = None
        if self._best is None:
            seen = sum(stretch.seconds for stretch in self._stretches)
            has_enough = seen >= _ENOUGH and len(self._stretches) >= _SOME
            self._best = max(stretch.rate for stretch in self._stretches) if has_enough else 0.0
        return self._best
