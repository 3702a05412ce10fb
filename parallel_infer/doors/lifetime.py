"""A door as its parent sees it: it listens, it counts what it does, and it is told when to end."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable

from parallel_infer.errors import InferError
from parallel_infer.ipc.messages import DoorActivity, FromChild, Listening, Started

_PAUSE = 0.5  # seconds between two reports of what has been done
BROKEN = "INTERNAL"  # the code of what is no error of ours


class Activity:
    """Counts requests; the parent is told soon after something has changed, and never otherwise."""

    def __init__(self, tell: Callable[[FromChild], None]) -> None:
        self._tell = tell
        self._requests: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._in_flight = 0
        self._bytes_in = self._bytes_out = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A request has come in."""
        self._in_flight += 1
        self._changed()

    def end(self, status: str, error: BaseException | None = None, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """It is answered, with `status` in the words of the door's protocol; sizes are those of the bodies."""
        self._in_flight -= 1
        self.turn_away(status, error, bytes_in, bytes_out)

    def turn_away(self, status: str, error: BaseException | None = None, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """Count what never became a request."""
        self._requests[status] += 1
        self._bytes_in += bytes_in
        self._bytes_out += bytes_out
        if error is not None:
            self._refused[error.code if isinstance(error, InferError) else BROKEN] += 1
        self._changed()

    def _changed(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE, self.report)

    def report(self) -> None:
        """Tell the parent now."""
        self._timer = None
        requests, refused = dict(self._requests), dict(self._refused)
        self._tell(DoorActivity(os.getpid(), requests, refused, self._in_flight, self._bytes_in, self._bytes_out))


class Lifetime:
    """From a door's start to its end."""

    def __init__(self, tell: Callable[[FromChild], None]) -> None:
        self._tell = tell
        self.activity = Activity(tell)
        self.stop = asyncio.Event()  # the parent says that it is time to go, or is gone

    def listening(self, addresses: list[str]) -> None:
        """Clients can come in at these addresses, and the gateway has answered."""
        self.activity.report()
        self._tell(Started())
        self._tell(Listening(tuple(addresses)))
