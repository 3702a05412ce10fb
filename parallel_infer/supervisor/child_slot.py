"""One child's slot: which process fills it, how it is, and when a dead one may be started again."""

from __future__ import annotations

import math
from collections import deque
from enum import Enum

import msgspec

from parallel_infer.ipc.messages import Started
from parallel_infer.process.options import ChildOptions

_WINDOW = 60.0  # seconds in which restarts are counted
_FREE = 3  # restarts at once, or half of the budget where that is more; later ones wait, longer each time
_LONGEST_WAIT = 5.0  # seconds
_EXHAUSTED_WAIT = 30.0  # seconds until a slot whose budget is used up is tried again


class Role(Enum):
    """What a child is."""

    DISPATCHER = "dispatcher"
    GATEWAY = "gateway"
    WORKER = "worker"
    DOOR = "door"


class ChildSlot:
    """Survives the processes that fill it; `running` is the name of the one that does, empty while there is none."""

    def __init__(self, name: str, role: Role, entry: str, options: ChildOptions, model: str = "") -> None:
        self.name = name
        self.role = role
        self.entry = entry
        self.options = options
        self.model = model  # an infer worker's: the model's key
        self.incarnation = 0
        self.running = ""
        self.started = Started()  # what the process said once it was up
        self.up = False
        self.leaving = False
        self.start_at: float | None = None  # when a dead child is to be started again
        self.up_by = math.inf  # when a child that is being started counts as hung
        self.restarts = 0
        self.last_error = ""  # why the process says it ends
        self._recent: deque[float] = deque()

    def fill(self, up_by: float) -> None:
        """Name a new process, which is to be up at `up_by`; it is started under that name."""
        self.incarnation += 1
        self.running = f"{self.name}.{self.incarnation}"
        self.options = msgspec.structs.replace(self.options, epoch=self.incarnation)
        self.started = Started()
        self.up = False
        self.up_by = up_by
        self.start_at = None
        self.last_error = ""

    def empty(self) -> None:
        """Its process has ended."""
        self.up = False
        self.running = ""
        self.started = Started()

    def leave(self) -> None:
        """Its process ends by itself now: it answers nobody any more, and is not started again."""
        self.up = False
        self.leaving = True
        self.up_by = math.inf

    @property
    def late_at(self) -> float | None:
        """When its process has to be killed unless it is up by then; None where there is no such time."""
        return None if self.up or not self.running or math.isinf(self.up_by) else self.up_by

    def died(self, now: float, budget: int) -> bool:
        """Plan the next start; False when the budget of restarts is used up, so that it is a long while off."""
        while self._recent and self._recent[0] <= now - _WINDOW:
            self._recent.popleft()
        self._recent.append(now)
        self.restarts += 1
        number = len(self._recent)
        if number > budget:
            self.start_at = now + _EXHAUSTED_WAIT
            return False
        late = number - max(_FREE, budget // 2)
        self.start_at = now if late <= 0 else now + min(_LONGEST_WAIT, 0.1 * 2.0**late)
        return True
