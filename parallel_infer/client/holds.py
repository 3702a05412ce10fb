"""Models whose queue is full, as the server told: for how long a client sends nothing more for them.

A refusal costs the server nearly as much as a small job. A client that has others under way is therefore told what the
server would say again, without the server; who waits for nothing else always asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from parallel_infer.client.pending import Outcome
from parallel_infer.errors import QueueFull
from parallel_infer.protocol import Infer

LONGEST = 1.0  # seconds, whatever a server says


class Holds:
    """What not to send for now; at most `longest` seconds, 0.0 for a client that speaks for many others."""

    def __init__(self, longest: float = LONGEST, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest = longest
        self._clock = clock
        self._full: dict[str, tuple[float, str]] = {}  # model -> until when, and what the server said

    def noted(self, request: object, outcome: Outcome) -> Outcome:
        """The server has replied; its reply is returned."""
        if isinstance(outcome, QueueFull) and isinstance(request, Infer):
            seconds = min(outcome.retry_after, self._longest)
            if seconds > 0:
                self._full[request.model] = self._clock() + seconds, str(outcome)
        return outcome

    def refusal(self, request: object) -> QueueFull | None:
        """What the server would reply now; None where the request may be sent."""
        if not self._full or not isinstance(request, Infer) or request.model not in self._full:
            return None
        until, text = self._full[request.model]
        left = until - self._clock()
        if left > 0:
            return QueueFull(text, left)
        del self._full[request.model]
        return None
