"""Calls that may wait, for a file system that hangs or is far away, made beside an event loop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

Result = TypeVar("Result")
_Call = Callable[[], Result]
_Then = Callable[[Result], None]


class Aside(Generic[Result]):
    """Makes calls one after the other in a thread of its own; their results are taken in the thread that asked.

    `descriptor` is readable while there are results to take. The thread starts at the first call.
    """

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._calls: SimpleQueue[tuple[_Call[Result], _Then[Result]] | None] = SimpleQueue()
        self._results: SimpleQueue[tuple[_Then[Result], Result]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def ask(self, call: _Call[Result], then: _Then[Result]) -> None:
        """Make a call, which raises nothing; `then` gets what it returned, in the middle of `take`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="aside", daemon=True)
            self._thread.start()
        self._calls.put((call, then))

    def take(self) -> None:
        """Pass on the results that are there."""
        os.eventfd_read(self.descriptor)
        while not self._results.empty():
            then, result = self._results.get()
            then(result)

    def close(self, patience: float) -> None:
        """Wait up to `patience` seconds for what was asked, and pass it on; a call that hangs is left alone."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join(patience)
            if self._thread.is_alive():
                return  # it will write to the descriptor yet
            if not self._results.empty():
                self.take()
        os.close(self.descriptor)

    def _run(self) -> None:
        while (asked := self._calls.get()) is not None:
            call, then = asked
            self._results.put((then, call()))
            os.eventfd_write(self.descriptor, 1)
