"""What waits to be sent, and how often something is sent again after its connection was lost.

A connection is lost because the server restarts: then nobody listens for a while, everything that was under way goes
out again, and nobody is to blame. Or it is cut, by a server that stays, because of something that was sent over it.
Once, everything goes out again. What was under way when a connection was cut twice is suspect: suspects go out one at a
time, with pauses that grow, the largest first, and twice as many at a time after each answer. Whoever is alone when the
connection is cut again and again is the reason, and is given up; the others are suspect no more. Nothing is sent more
than a bounded number of times, whatever the reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from parallel_infer.client.pending import Pending

_SUSPECT = 2  # cuts after which a request is sent on its own
_GUILTY = 3  # cuts with nothing else under way
_MOST = 20  # losses of any kind
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5  # seconds


class Outbox:
    """Requests in the order in which they may be sent. Pure: the time is given to it."""

    def __init__(self) -> None:
        self._ready: deque[Pending] = deque()
        self._suspects: deque[Pending] = deque()
        self._tried: set[Pending] = set()  # suspects under way
        self._group = 1  # suspects that may be under way at a time
        self._pause = _FIRST_PAUSE
        self._resume = 0.0  # no suspect is sent before

    def __bool__(self) -> bool:
        return bool(self._ready or self._suspects)

    def append(self, pending: Pending) -> None:
        """Send a request after those that wait already."""
        self._ready.append(pending)

    def next(self, now: float) -> Pending | None:
        """The request to send now, if there is any."""
        if self._ready:
            return self._ready[0]
        if self._suspects and len(self._tried) < self._group and now >= self._resume:
            return self._suspects[0]
        return None

    def taken(self, pending: Pending) -> None:
        """What `next` said was sent, or needs not be sent any more."""
        if self._ready:
            self._ready.popleft()
            return
        self._suspects.popleft()
        if pending.under_way:
            self._tried.add(pending)

    def answered(self, pending: Pending) -> None:
        """A reply came, or nobody waits for one any more."""
        if pending in self._tried:
            self._tried.discard(pending)
            self._group *= 2
            self._pause = _FIRST_PAUSE

    def lost(self, waiting: Iterable[Pending]) -> list[Pending]:
        """The server was away: everything that waits goes out again, except for what is returned: given up."""
        waiting = list(waiting)
        self._lost(waiting)
        return self._go_on(waiting, [])

    def cut(self, waiting: Iterable[Pending], now: float) -> list[Pending]:
        """The same where the server stayed: something that was under way may be the reason."""
        waiting = list(waiting)
        tried = [pending for pending in waiting if pending in self._tried]
        blamed = tried or [pending for pending in waiting if pending.under_way]
        self._lost(waiting)
        for pending in blamed:
            pending.suspicion += 1
        if not tried:
            return self._go_on(waiting, [])
        self._resume = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        guilty: list[Pending] = []
        if len(tried) == 1:
            tried[0].cuts_alone += 1
            guilty = [pending for pending in tried if pending.cuts_alone >= _GUILTY]
        if guilty:
            self._pause = _FIRST_PAUSE
            for pending in waiting:
                pending.suspicion = 0
        return self._go_on(waiting, guilty)

    @staticmethod
    def _lost(waiting: list[Pending]) -> None:
        for pending in waiting:
            pending.losses += pending.under_way
            pending.under_way = False

    def _go_on(self, waiting: list[Pending], guilty: list[Pending]) -> list[Pending]:
        self._tried.clear()
        self._group = 1
        given_up = [pending for pending in waiting if pending in guilty or pending.losses >= _MOST]
        gone = set(given_up)
        left = [pending for pending in waiting if pending not in gone]
        self._ready = deque(pending for pending in left if pending.suspicion < _SUSPECT)
        self._suspects = deque(sorted((p for p in left if p.suspicion >= _SUSPECT), key=lambda p: -p.size))
        return given_up
