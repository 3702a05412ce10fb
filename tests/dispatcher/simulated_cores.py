"""Processor cores that processes share, simulated: who runs when, and how long work takes then.

A small model of a fair scheduler. Each process has a virtual time, the processor time that it has used. A free core
takes the waiting process that has used least and runs it for a slice; one that wakes up joins at the others' time, so
that sleeping earns no more than being next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

SLICE = 0.0014  # seconds; what Linux gives a process of two cores before it looks again


@dataclass(slots=True)
class _Process:
    name: str
    used: float = 0.0  # seconds of processor time, its virtual time
    work: deque[tuple[list[float], Callable[[], None]]] = field(default_factory=deque)  # seconds left, and what follows
    running: bool = False


class Cores:
    """`count` cores; `later(when, event)` and `now()` are the simulation's."""

    def __init__(
        self, count: int, later: Callable[[float, Callable[[], None]], None], now: Callable[[], float]
    ) -> None:
        self.count = count
        self.busy_seconds = 0.0
        self._later = later
        self._now = now
        self._processes: dict[str, _Process] = {}
        self._running = 0

    def work(self, process: str, seconds: float, then: Callable[[], None]) -> None:
        """Let a process work for so many seconds of processor time, after what it has to do already."""
        one = self._processes.setdefault(process, _Process(process))
        if not one.work and not one.running:
            one.used = max(one.used, min((p.used for p in self._waiting()), default=one.used) - SLICE)
        one.work.append(([seconds], then))
        self._fill()

    def _waiting(self) -> list[_Process]:
        return [process for process in self._processes.values() if process.work]

    def _fill(self) -> None:
        """Give free cores to those that wait."""
        while self._running < self.count:
            waiting = [process for process in self._waiting() if not process.running]
            if not waiting:
                return
            self._run(min(waiting, key=lambda process: process.used))

    def _run(self, process: _Process) -> None:
        left, then = process.work[0]
        seconds = min(SLICE, left[0])
        process.running = True
        self._running += 1

        def over() -> None:
            process.running = False
            process.used += seconds
            self._running -= 1
            self.busy_seconds += seconds
            left[0] -= seconds
            if left[0] <= 1e-9:
                process.work.popleft()
                then()
            self._fill()

        self._later(self._now() + seconds, over)
