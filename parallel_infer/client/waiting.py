"""The requests of a connection that wait for their replies, and which of them have waited long enough.

Thousands may wait at once, and nearly all are answered soon: nothing here looks at every request, and the deadline of
one that is answered before anybody asks who is overdue is never looked at.
"""

from __future__ import annotations

from collections.abc import ValuesView
from itertools import takewhile

from parallel_infer.client.pending import Pending
from parallel_infer.deadlines import Deadlines

GRACE = 0.25  # seconds the server's own DEADLINE_EXCEEDED has to arrive
_AGAIN = 0.05  # seconds after which what is overdue is named again, should whoever fails it be interrupted


class Waiting:
    """Requests by their ids. Pure: the time is given to it."""

    def __init__(self) -> None:
        self._requests: dict[int, Pending] = {}  # those whose deadlines are not watched yet are the last ones
        self._deadlines: Deadlines[Pending] = Deadlines()

    def __len__(self) -> int:
        return len(self._requests)

    def __contains__(self, pending: Pending) -> bool:
        return self._requests.get(pending.request.id) is pending

    def all(self) -> ValuesView[Pending]:
        """Every request, in the order in which they were added."""
        return self._requests.values()

    def add(self, pending: Pending) -> None:
        """A request waits from now on."""
        self._requests[pending.request.id] = pending

    def pop(self, number: int) -> Pending | None:
        """The request of this id, which waits no more; None where none does."""
        pending = self._requests.pop(number, None)
        if pending is not None and pending.watched is not None:
            self._deadlines.discard(number, pending.watched)
            pending.watched = None
        return pending

    def limit(self, pending: Pending, timeout: float) -> None:
        """Let a request wait no longer than `timeout` seconds from when it was made."""
        pending.limit(timeout)
        if pending.watched is not None:
            self._deadlines.discard(pending.request.id, pending.watched)
            self._watch(pending, pending.deadline)

    def overdue(self, now: float) -> list[Pending]:
        """Requests past their deadline; what was sent has GRACE more. They wait on until they are popped."""
        new = list(takewhile(lambda pending: pending.watched is None, reversed(self._requests.values())))
        for pending in reversed(new):
            self._watch(pending, pending.deadline)
        self._deadlines.next()  # lets go of what was kept for those answered long before they were due
        late = []
        for pending in self._deadlines.expired(now):
            limit = pending.deadline + GRACE if pending.sent else pending.deadline
            if now >= limit:
                late.append(pending)
                limit = now + _AGAIN
            self._watch(pending, limit)
        return late

    def _watch(self, pending: Pending, until: float) -> None:
        pending.watched = until
        self._deadlines.add(pending.request.id, until, pending)
