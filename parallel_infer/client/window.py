"""Many pictures over one connection: how many are in flight, what is tried again, and the answers in order.

The server says RESOURCE_UNAVAILABLE where it does not take a picture. The window then shrinks to what the server did
take, and the picture is sent again, within its own timeout; every window's worth of answers lets it grow by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from parallel_infer.answers.answer import Answer
from parallel_infer.client.arguments import Errors
from parallel_infer.client.connection import Connection
from parallel_infer.client.in_flight_queue import Entry, InFlightQueue, Pause
from parallel_infer.client.payload import Payload, Picture, payload_of
from parallel_infer.client.pending import Outcome, Pending
from parallel_infer.client.requests import Job, as_answer
from parallel_infer.errors import InferError, ResourceUnavailable


class _Sent(Entry):
    """One picture of the call."""

    def __init__(self) -> None:
        super().__init__()
        self.payload: Payload | None = None  # until it has its outcome
        self.pending: Pending | None = None  # while it is in flight
        self.deadline: float | None = None  # time.monotonic(), once it was refused


class Window:
    """The pictures of one `infer_many` that are on their way. No I/O but `Connection.post`."""

    def __init__(
        self, connection: Connection, job: Job, in_flight: int, changed: Callable[[], Any] | None = None
    ) -> None:
        self._queue: InFlightQueue[_Sent] = InFlightQueue(in_flight)  # those that wait were refused
        self._connection = connection
        self._job = job
        self._most = in_flight
        self._changed = changed  # told whenever a picture was answered or refused
        self._grown = 0  # answers since the window grew
        self._pause = Pause()
        if connection.lent is not None:
            connection.lent.wanted = in_flight

    @property
    def timeout(self) -> float:
        """Seconds for each picture."""
        return self._job.timeout

    @property
    def open(self) -> bool:
        """Whether another picture may be sent."""
        return self._queue.is_open

    @property
    def done(self) -> bool:
        """Whether every picture has its answer or error."""
        return not self._queue.in_flight and not self._queue.waiting

    @property
    def patience(self) -> float | None:
        """Seconds to wait for a reply before `retry` has something to do; None: nothing without a reply."""
        if self._queue.waiting and self._queue.has_room:
            return max(0.0, self._pause.end - time.monotonic())
        return None

    def add(self, picture: Picture) -> None:
        """Send the next picture. One that cannot be sent has its error as its result."""
        entry = _Sent()
        self._queue.add(entry)
        try:
            entry.payload = payload_of(picture, self._job.color, self._connection.terms.most)
        except InferError as error:
            entry.outcome = error
        else:
            self._send(self._queue.start(entry), entry.payload)

    def retry(self) -> None:
        """Send refused pictures again, where their pause is over and the window has room."""
        while time.monotonic() >= self._pause.end and (entry := self._queue.next_waiting()) is not None:
            assert entry.payload is not None
            self._send(entry, entry.payload)

    def results(self, errors: Errors) -> list[Answer | InferError]:
        """Answers in the order of the pictures. "raise" raises the first error instead."""
        found = [entry.outcome for entry in self._queue if entry.outcome is not None]
        if errors == "raise":
            for result in found:
                if isinstance(result, InferError):
                    raise result
        return found

    def abandon(self) -> None:
        """Forget everything that is on its way."""
        for entry in self._queue:
            if entry.pending is not None:
                self._connection.abandon(entry.pending)
        self._queue.clear()

    def _send(self, entry: _Sent, payload: Payload) -> None:
        pending = self._job.pending(
            self._connection, payload, lambda pending, outcome: self._settle(entry, pending, outcome)
        )
        if entry.deadline is not None:
            pending.deadline = entry.deadline
            pending.shorten()
        entry.pending = pending
        self._connection.post(pending)

    def _settle(self, entry: _Sent, pending: Pending, outcome: Outcome) -> None:
        if self._changed is not None:
            self._changed()
        entry.pending = None
        self._queue.end()
        if isinstance(outcome, ResourceUnavailable):
            self._shrink(outcome.retry_after)
            if self._pause.end < pending.deadline:
                entry.deadline = pending.deadline
                self._queue.wait(entry)
                return
        else:
            self._grow()
        entry.payload = None
        entry.outcome = as_answer(outcome)

    def _shrink(self, retry_after: float) -> None:
        self._queue.limit = max(1, min(self._queue.limit, self._queue.in_flight))
        self._grown = 0
        self._pause.begin(time.monotonic(), retry_after)

    def _grow(self) -> None:
        self._pause.reset()
        self._grown += 1
        if self._grown >= self._queue.limit < self._most:
            self._queue.limit += 1
            self._grown = 0
