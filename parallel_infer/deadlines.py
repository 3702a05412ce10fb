"""Deadlines of many jobs, most of which are answered long before: adding and removing cost no search."""

from __future__ import annotations

import heapq
import math
from typing import Generic, TypeVar

Item = TypeVar("Item")
RESOLUTION = 0.005  # seconds; a deadline fires at most this much late


class Deadlines(Generic[Item]):
    """Items by deadline (seconds), in buckets of RESOLUTION, each under a number of its own."""

    def __init__(self) -> None:
        self._buckets: dict[int, dict[int, Item]] = {}
        self._order: list[int] = []  # a heap of the buckets' numbers

    def add(self, number: int, deadline: float, item: Item) -> None:
        """Watch an item's deadline."""
        key = math.ceil(deadline / RESOLUTION)
        bucket = self._buckets.get(key)
        if bucket is None:
            self._buckets[key] = {number: item}
            heapq.heappush(self._order, key)
        else:
            bucket[number] = item

    def discard(self, number: int, deadline: float) -> None:
        """Forget an item. Buckets that become empty go when they are next in order."""
        bucket = self._buckets.get(math.ceil(deadline / RESOLUTION))
        if bucket is not None:
            bucket.pop(number, None)

    def next(self) -> float | None:
        """When the next deadline fires, or None."""
        while self._order and not self._buckets[self._order[0]]:
            del self._buckets[heapq.heappop(self._order)]
        return self._order[0] * RESOLUTION if self._order else None

    def expired(self, now: float) -> list[Item]:
        """Items whose deadline has passed; they are forgotten."""
        items: list[Item] = []
        while self._order and self._order[0] * RESOLUTION <= now:
            items += self._buckets.pop(heapq.heappop(self._order)).values()
        return items
