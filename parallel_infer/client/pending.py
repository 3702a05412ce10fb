"""A request that has no reply yet, kept so that it can be sent again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from parallel_infer.answers.answer import Answer
from parallel_infer.errors import InferError, error_for
from parallel_infer.protocol import Answer as WireAnswer
from parallel_infer.protocol import Error, Infer, Reply, Request

if TYPE_CHECKING:
    from parallel_infer.client.lent import Slot

Outcome = Answer | InferError | msgspec.Raw  # Raw: the result of everything but Infer


class Pending:
    """One request, its payload, and who is told the outcome (exactly once)."""

    __slots__ = (
        *("cuts_alone", "deadline", "losses", "outcome", "payload", "request", "sent", "sink", "slot"),
        *("suspicion", "timeout", "under_way", "watched"),
    )

    def __init__(
        self,
        request: Request,
        timeout: float,
        payload: bytes | memoryview | None = None,
        sink: Callable[[Pending, Outcome], Any] | None = None,
    ) -> None:
        self.request = request
        self.timeout = timeout  # seconds, as the user gave it
        self.deadline = time.monotonic() + timeout
        self.payload = payload
        self.sink = sink
        self.slot: Slot | None = None  # where the payload lies instead, in a ring the server lent
        self.outcome: Outcome | None = None
        self.sent = False  # once at least
        self.under_way = False  # sent over the connection that there is now
        self.losses = 0  # of the connection, while this was under way
        self.suspicion = 0  # times that it may have been the reason why the connection was cut
        self.cuts_alone = 0  # ... and nothing else may have been
        self.watched: float | None = None  # until when, as a time: see `Waiting`

    @property
    def size(self) -> int:
        """Bytes of the payload, where that travels."""
        return 0 if self.payload is None else len(self.payload)

    def settle(self, outcome: Outcome) -> None:
        """Keep the outcome and tell the sink."""
        self.outcome = outcome
        if self.sink is not None:
            self.sink(self, outcome)

    def also(self, sink: Callable[[Pending, Outcome], Any]) -> None:
        """Call `sink` as well, after those that are told already."""
        first = self.sink

        def both(pending: Pending, outcome: Outcome) -> None:
            if first is not None:
                first(pending, outcome)
            sink(pending, outcome)

        self.sink = both

    def limit(self, timeout: float) -> None:
        """Let it wait no longer than `timeout` seconds from when it was made."""
        self.deadline = min(self.deadline, self.deadline - self.timeout + timeout)
        self.timeout = min(self.timeout, timeout)

    def shorten(self) -> None:
        """Let the request say how much time is left now, before it is sent late or again."""
        if isinstance(self.request, Infer):
            left = max(0.001, self.deadline - time.monotonic())
            self.request = msgspec.structs.replace(self.request, timeout=left)

    def unlend(self) -> None:
        """Send the payload as bytes from now on, straight from the slot it lies in; the slot stays claimed."""
        if self.slot is not None and isinstance(self.request, Infer):
            self.payload = self.slot.data
            self.request = msgspec.structs.replace(self.request, slot=None)

    def lend(self, slot: Slot) -> None:
        """Let the payload lie in `slot` instead of travelling."""
        if isinstance(self.request, Infer):
            self.slot = slot
            self.payload = None
            self.request = msgspec.structs.replace(self.request, slot=slot.reference)


def outcome_of(reply: Reply, payload: bytes | memoryview) -> Outcome:
    """What a reply says."""
    if isinstance(reply, WireAnswer):
        try:
            return Answer.from_wire(reply, payload)
        except InferError as error:
            return error
    if isinstance(reply, Error):
        return error_for(reply.code, reply.message, reply.reason, reply.retry_after)
    return reply.result
