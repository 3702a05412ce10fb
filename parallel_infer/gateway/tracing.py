"""The gateway's part of a trace: when it was at work with a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parallel_infer.ipc.messages import Traced, Turn

_MOST = 50_000  # of each kind that are kept


class Tracing:
    """A trace under way."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = clock()
        self._admitted: list[Turn] = []
        self._answered: list[Turn] = []

    def admitted(self, job: int, began: float) -> None:
        """A job was let in just now."""
        self._note(self._admitted, job, began)

    def answered(self, job: int, began: float) -> None:
        """A job was answered just now."""
        self._note(self._answered, job, began)

    def _note(self, turns: list[Turn], job: int, began: float) -> None:
        if len(turns) < _MOST:
            turns.append(Turn(began, self._clock() - began, job))

    def result(self, traced: Traced) -> dict[str, Any]:
        """What the client gets."""
        full = max(len(self._admitted), len(self._answered)) >= _MOST
        return {
            "started": self._started,
            "seconds": self._clock() - self._started,
            "work": traced.work,
            "dispatcher": traced.turns,
            "admitted": self._admitted,
            "answered": self._answered,
            "complete": traced.complete and not full,
        }
