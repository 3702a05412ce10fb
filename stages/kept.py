"""Decoded pictures that are kept while further objects may be cut out of them. Bounded; the ones used last stay."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from stages.pictures import Picture


class KeptPictures:
    """Copies of decoded pictures by the number of their request, in at most `limit` bytes; 0: none is kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._pictures: OrderedDict[int, Picture] = OrderedDict()

    def get(self, number: int) -> Picture | None:
        """The picture of a request, while it is kept."""
        found = self._pictures.get(number)
        if found is not None:
            self._pictures.move_to_end(number)
        return found

    def put(self, number: int, picture: Picture) -> None:
        """Keep a copy, and forget those not used for longest where there are too many bytes."""
        size = picture.frame.nbytes
        if size > self._limit or number in self._pictures:
            return
        while self._used + size > self._limit:
            _, oldest = self._pictures.popitem(last=False)
            self._used -= oldest.frame.nbytes
        self._pictures[number] = picture._replace(frame=np.array(picture.frame))
        self._used += size
