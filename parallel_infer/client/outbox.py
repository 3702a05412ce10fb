"""What waits to be sent, and how often something is sent again after its connection was lost.

A connection is lost because the server restarts, or because of something that was sent over it. Once, everything that
was under way goes out again. What was under way at two losses is suspect: suspects go out one at a time, with pauses
that grow, the largest first, and twice as many at a time after each answer. Whoever is alone when the connection is
lost again and again has cut it, and is given up; the others are suspect no more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from parallel_infer.client.pending import Pending

_SUSPECT = 2  # losses after which a request is sent on its own
_GUILTY = 3  # losses with nothing else under way
_MOST = 8  # losses of any kind
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds


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

    def lost(self, waiting: Iterable[Pending], now: float) -> list[Pending]:
        """The connection was lost: everything that waits goes out again, except for what is returned: given up."""
        waiting = list(waiting)
        under_way = [pending for pending in waiting if pending.under_way]
        blamed = [pending for pending in under_way if pending in self._tried] or under_way
        for pending in under_way:
            pending.under_way = False
        for pending in blamed:
            pending.losses += 1
            pending.suspicion += 1
        if self._tried:
            self._resume = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        given_up = [pending for pending in blamed if pending.losses >= _MOST]
        if len(self._tried) == len(blamed) == 1:
            alone = blamed[0]
            alone.losses_alone += 1
            if alone.losses_alone >= _GUILTY:
                given_up = blamed
                self._pause = _FIRST_PAUSE
                for pending in waiting:
                    pending.suspicion = 0
        self._tried.clear()
        self._group = 1
        left = [pending for pending in waiting if pending not in given_up]
        self._ready = deque(pending for pending in left if pending.suspicion < _SUSPECT)
        self._suspects = deque(sorted((p for p in left if p.suspicion >= _SUSPECT), key=lambda p: -p.size))
        return given_up
