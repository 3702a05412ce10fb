"""The queue under streams, `infer_many` and live video: what waits, what is in flight, and outcomes in order. Pure."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from parallel_infer.answers.answer import Answer
from parallel_infer.client.holds import LONGEST
from parallel_infer.errors import Dropped, InferError

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1  # seconds before a refused picture is sent again


class Entry:
    """One picture, from being added to its outcome being handed on."""

    def __init__(self) -> None:
        self.number = 0  # in the order of being added
        self.outcome: Answer | InferError | None = None


E = TypeVar("E", bound=Entry)


class InFlightQueue(Generic[E]):
    """Entries in the order of being added; at most `limit` of them are in flight.

    An entry that was added may `wait`; one that was started, by `start` or by `next_waiting`, is in flight until
    `end`, and may wait again. It stays until `pop_done` hands it on, which needs its outcome.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self._added = 0
        self._order: deque[E] = deque()  # all that are not handed on
        self._waiting: deque[E] = deque()  # those of them that are to be started, in the same order

    @property
    def has_room(self) -> bool:
        """Whether one more may be in flight."""
        return self.in_flight < self.limit

    @property
    def is_open(self) -> bool:
        """Whether there is room for one more beside those that wait."""
        return self.in_flight + len(self._waiting) < self.limit

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def empty(self) -> bool:
        """Whether everything was handed on."""
        return not self._order

    @property
    def first_done(self) -> bool:
        """Whether `pop_done` has something to hand on."""
        return bool(self._order) and self._order[0].outcome is not None

    def __iter__(self) -> Iterator[E]:
        return iter(self._order)

    def add(self, entry: E) -> None:
        """Append an entry; it neither waits nor is it in flight."""
        entry.number = self._added
        self._added += 1
        self._order.append(entry)

    def wait(self, entry: E) -> None:
        """Let an entry wait, before all that were added later."""
        bisect.insort(self._waiting, entry, key=lambda other: other.number)

    def start(self, entry: E) -> E:
        """Count an entry that does not wait as in flight."""
        self.in_flight += 1
        return entry

    def next_waiting(self) -> E | None:
        """Start the entry that was added first of those that wait; None where none waits or there is no room."""
        return self.start(self._waiting.popleft()) if self._waiting and self.has_room else None

    def keep_newest(self, count: int) -> Iterator[E]:
        """Those that waited beyond the newest `count`, oldest first; they wait no longer."""
        while len(self._waiting) > count:
            yield self._waiting.popleft()

    def end(self) -> None:
        """One entry is no longer in flight."""
        self.in_flight -= 1

    def pop_done(self) -> E | None:
        """Hand on the first entry; None where it has no outcome yet."""
        return self._order.popleft() if self.first_done else None

    def clear(self) -> None:
        """Forget everything."""
        self._order.clear()
        self._waiting.clear()
        self.in_flight = 0


def take(queue: InFlightQueue[E], entry: E) -> None:
    """Let the newest frame of a stream wait; the one that waited before is dropped."""
    for older in queue.keep_newest(0):
        older.outcome = Dropped("A newer frame of the same source took the place of this one")
    queue.add(entry)
    queue.wait(entry)


class Pause:
    """How long to wait after the server refused what was sent; doubles until something is taken. Time is injected."""

    def __init__(self) -> None:
        self.end = 0.0  # nothing that was refused is sent again before
        self._length = _FIRST_PAUSE

    def begin(self, now: float, retry_after: float = 0.0) -> None:
        """Something was refused. One pause counts for all that were refused together; as long as the server said."""
        if now >= self.end:
            self.end = now + max(self._length, min(retry_after, LONGEST))
            self._length = min(2 * self._length, _LONGEST_PAUSE)

    def reset(self) -> None:
        """Something was taken: the next pause is a short one."""
        self._length = _FIRST_PAUSE
