"""The requests of a connection that wait for their replies, and which of them have waited long enough.

Thousands may wait at once, and nearly all are answered long before they are due: nothing here looks at every request.
"""

from __future__ import annotations

from collections.abc import ValuesView

from parallel_infer.client.pending import Pending
from parallel_infer.deadlines import Deadlines

GRACE = 0.25  # seconds the server's own DEADLINE_EXCEEDED has to arrive
_AGAIN = 0.05  # seconds after which what is overdue is named again, should whoever fails it be interrupted


class Waiting:
    """Requests by their ids. Pure: the time is given to it."""

    def __init__(self) -> None:
        self._requests: dict[int, Pending] = {}
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
        number = pending.request.id
        self._requests[number] = pending
        pending.looked_at = pending.deadline
        self._deadlines.add(number, pending.deadline, pending)

    def pop(self, number: int) -> Pending | None:
        """The request of this id, which waits no more; None where none does."""
        pending = self._requests.pop(number, None)
        if pending is not None:
            self._deadlines.discard(number, pending.looked_at)
        return pending

    def limit(self, pending: Pending, timeout: float) -> None:
        """Let a request wait no longer than `timeout` seconds from when it was made."""
        pending.limit(timeout)
        if pending in self:
            self._deadlines.discard(pending.request.id, pending.looked_at)
            self.add(pending)

    def overdue(self, now: float) -> list[Pending]:
        """Requests past their deadline; what was sent has GRACE more. They wait on until they are popped."""
        self._deadlines.next()  # lets go of what was kept for those answered long before they were due
        late = []
        for pending in self._deadlines.expired(now):
            limit = pending.deadline + GRACE if pending.sent else pending.deadline
            if now >= limit:
                late.append(pending)
                limit = now + _AGAIN
            pending.looked_at = limit
            self._deadlines.add(pending.request.id, limit, pending)
        return late
