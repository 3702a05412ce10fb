"""Waits for a device in a thread of its own, so that the loop of a process hears of new work meanwhile."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Waiter(Generic[Item]):
    """Calls `wait` of one item after the other; `descriptor` is readable when some of them are over, until `end`."""

    def __init__(self, wait: Callable[[Item], object]) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wait = wait
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._over: deque[Item] = deque()
        threading.Thread(target=self._live, name="waiter", daemon=True).start()

    def put(self, item: Item) -> None:
        """Wait for this one behind those before it."""
        self._items.put(item)

    def take(self) -> list[Item]:
        """Those that are over, in the order they were put in."""
        try:
            os.eventfd_read(self.descriptor)  # first, so that what is over after this is heard of
        except BlockingIOError:
            return []
        return [self._over.popleft() for _ in range(len(self._over))]

    def end(self) -> None:
        """Wait for what was put in, of which nobody wants to know any more."""
        self._items.put(None)

    def _live(self) -> None:
        while (item := self._items.get()) is not None:
            self._wait(item)
            self._over.append(item)
            os.eventfd_write(self.descriptor, 1)
        os.close(self.descriptor)
