"""Many pictures over one connection: how many are in flight, what is tried again, and the answers in order.

The server says RESOURCE_UNAVAILABLE where it does not take a picture. The window then shrinks to what the server did
take, and the picture is sent again, within its own timeout; every window's worth of answers lets it grow by one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from parallel_infer.answers.answer import Answer
from parallel_infer.client.connection import Connection
from parallel_infer.client.payload import Payload, Picture, payload_of
from parallel_infer.client.pending import Outcome, Pending
from parallel_infer.client.requests import Errors, Job
from parallel_infer.errors import InferError, ResourceUnavailable

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1  # seconds before a refused picture is sent again


class Window:
    """The pictures of one `infer_many` that are on their way. No I/O but `Connection.post`."""

    def __init__(
        self, connection: Connection, job: Job, in_flight: int, changed: Callable[[], Any] | None = None
    ) -> None:
        self._results: list[Answer | InferError | None] = []
        self._connection = connection
        self._job = job
        self._most = in_flight
        self._size = in_flight
        self._busy: dict[int, tuple[Pending, Payload]] = {}  # by place among the pictures
        self._refused: deque[tuple[Pending, Payload]] = deque()
        self._changed = changed  # told whenever a picture was answered or refused
        self._grown = 0  # answers since the window grew
        self._pause = _FIRST_PAUSE
        self._resume = 0.0  # no refused picture is sent again before
        if connection.lent is not None:
            connection.lent.wanted = in_flight

    @property
    def open(self) -> bool:
        """Whether another picture may be sent."""
        return len(self._busy) + len(self._refused) < self._size

    @property
    def done(self) -> bool:
        """Whether every picture has its answer or error."""
        return not self._busy and not self._refused

    @property
    def patience(self) -> float | None:
        """Seconds to wait for a reply before `retry` has something to do; None: nothing without a reply."""
        if self._refused and len(self._busy) < self._size:
            return max(0.0, self._resume - time.monotonic())
        return None

    def add(self, picture: Picture) -> None:
        """Send the next picture. One that cannot be sent has its error as its result."""
        index = len(self._results)
        self._results.append(None)
        try:
            payload = payload_of(picture, self._job.color, self._connection.terms.most)
        except InferError as error:
            self._results[index] = error
        else:
            self._send(index, payload)

    def retry(self) -> None:
        """Send refused pictures again, where their pause is over and the window has room."""
        while self._refused and len(self._busy) < self._size and time.monotonic() >= self._resume:
            refused, payload = self._refused.popleft()
            self._send(refused.index, payload, refused.deadline)

    def results(self, errors: Errors) -> list[Answer | InferError]:
        """Answers in the order of the pictures. "raise" raises the first error instead."""
        found = [result for result in self._results if result is not None]
        if errors == "raise":
            for result in found:
                if isinstance(result, InferError):
                    raise result
        return found

    def abandon(self) -> None:
        """Forget everything that is on its way."""
        for pending, _ in list(self._busy.values()):
            self._connection.abandon(pending)
        self._busy.clear()
        self._refused.clear()

    def _send(self, index: int, payload: Payload, deadline: float | None = None) -> None:
        pending = self._job.pending(self._connection, payload, self._settle)
        pending.index = index
        if deadline is not None:
            pending.deadline = deadline
            pending.shorten()
        self._busy[index] = pending, payload
        self._connection.post(pending)

    def _settle(self, pending: Pending, outcome: Outcome) -> None:
        if self._changed is not None:
            self._changed()
        _, payload = self._busy.pop(pending.index)
        if isinstance(outcome, ResourceUnavailable):
            self._shrink()
            if self._resume < pending.deadline:
                self._refused.append((pending, payload))
                return
        else:
            self._grow()
        if isinstance(outcome, msgspec.Raw):
            outcome = InferError("The server sent something else than an answer")
        self._results[pending.index] = outcome

    def _shrink(self) -> None:
        self._size = max(1, min(self._size, len(self._busy)))
        self._grown = 0
        now = time.monotonic()
        if now >= self._resume:  # one pause for all that were refused together
            self._resume = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _grow(self) -> None:
        self._pause = _FIRST_PAUSE
        self._grown += 1
        if self._grown >= self._size < self._most:
            self._size += 1
            self._grown = 0
