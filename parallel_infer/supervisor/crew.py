"""Who has to be there: every child by its place, its incarnations, and when it may be started again."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any

from parallel_infer.process import Process

_WINDOW = 60.0  # seconds in which restarts are counted
_FREE = 3  # restarts at once; later ones wait, longer each time
_LONGEST_WAIT = 5.0  # seconds


class Role(Enum):
    """What a child is."""

    DISPATCHER = "dispatcher"
    GATEWAY = "gateway"
    WORKER = "worker"


class Place:
    """One child's place: survives the processes that fill it."""

    def __init__(self, name: str, role: Role, entry: str, arguments: dict[str, Any], model: str = "") -> None:
        self.name = name
        self.role = role
        self.entry = entry
        self.arguments = arguments
        self.model = model  # of an infer worker
        self.incarnation = 0
        self.process: Process | None = None
        self.up = False
        self.start_at: float | None = None  # when a dead child is to be started again
        self.restarts = 0
        self.leaving = False  # its end is wanted
        self._recent: deque[float] = deque()

    def start(self) -> Process:
        """Fill the place with a new process."""
        self.incarnation += 1
        self.up = False
        self.start_at = None
        arguments = {**self.arguments, "epoch": self.incarnation}
        self.process = Process(f"{self.name}.{self.incarnation}", self.entry, arguments)
        self.process.start()
        return self.process

    def died(self, now: float, budget: int) -> bool:
        """Plan the next start; False when the budget of restarts is used up."""
        self.up = False
        self.process = None
        while self._recent and self._recent[0] <= now - _WINDOW:
            self._recent.popleft()
        self._recent.append(now)
        self.restarts += 1
        number = len(self._recent)
        if number > budget:
            return False
        self.start_at = now if number <= _FREE else now + min(_LONGEST_WAIT, 0.1 * 2.0 ** (number - _FREE))
        return True
