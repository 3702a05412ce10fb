"""Decoded pictures that are kept while further jobs are about them. Bounded; their memory is used again."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from stages.frame import Frame
from stages.pictures import Picture


class KeptPictures:
    """Copies of decoded pictures by the number of their request, in at most `limit` bytes; 0: none is kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0  # bytes, those of `_spare` too
        self._pictures: dict[int, Picture] = {}
        self._spare: list[Frame] = []  # of pictures that were forgotten: new memory costs a page fault for each 4 KiB

    def get(self, number: int) -> Picture | None:
        """The picture of a request, while it is kept."""
        return self._pictures.get(number)

    def put(self, number: int, picture: Picture) -> int:
        """Keep a copy; the bytes it takes, 0 where there is no room: those that are kept are needed sooner."""
        memory = self._memory(picture.frame)
        if memory is None:
            return 0
        np.copyto(memory, picture.frame)
        self._pictures[number] = picture._replace(frame=memory)
        return memory.nbytes

    def forget(self, numbers: Iterable[int] | None) -> None:
        """Keep these no more; None: any."""
        for number in list(self._pictures) if numbers is None else numbers:
            found = self._pictures.pop(number, None)
            if found is not None:
                self._spare.append(found.frame)

    def _memory(self, frame: Frame) -> Frame | None:
        for place, spare in enumerate(self._spare):
            if spare.shape == frame.shape:
                return self._spare.pop(place)
        while self._spare and self._used + frame.nbytes > self._limit:
            self._used -= self._spare.pop(0).nbytes
        if self._used + frame.nbytes > self._limit:
            return None
        self._used += frame.nbytes
        return np.empty(frame.shape, np.uint8)
