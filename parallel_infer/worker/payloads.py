"""Payloads of jobs, read where they lie."""

from __future__ import annotations

from collections import OrderedDict, deque

from parallel_infer.errors import BadInput
from parallel_infer.ipc.messages import SlotRef
from parallel_infer.shm.segment import Segment, exists

_LOOKS = 2  # rings that are looked at for each new one: all of them before as many again have come


class Payloads:
    """Payloads of jobs where they lie: ingress rings, and rings lent to clients that come and go.

    The rings used last stay attached. Each new one looks at a few others, in turns, whether they are there still: a
    ring that was given back takes memory for as long as anybody has it mapped.
    """

    def __init__(self, most: int = 1024) -> None:
        self._segments: OrderedDict[str, tuple[Segment, memoryview]] = OrderedDict()  # the one used last at the end
        self._turns: deque[str] = deque()  # the same names, the one looked at next in front
        self._most = most

    def read(self, ref: SlotRef) -> memoryview:
        """The payload's bytes, read-only, without a copy. Raises BadInput when its ring is gone."""
        known = self._segments.get(ref.ring)
        if known is None:
            known = self._attach(ref.ring)
        else:
            self._segments.move_to_end(ref.ring)
        start = ref.index * ref.slot_size
        return known[1][start : start + ref.size]

    def _attach(self, name: str) -> tuple[Segment, memoryview]:
        self._look_at_some()
        try:
            segment = Segment.attach(name)
        except FileNotFoundError:
            raise BadInput("the ring that holds the payload was given back") from None
        if len(self._segments) >= self._most:
            self._segments.popitem(last=False)[1][0].close()
        known = segment, segment.view("uint8", (segment.size,)).data.toreadonly()
        self._segments[name] = known
        self._turns.append(name)
        return known

    def _look_at_some(self) -> None:
        for _ in range(min(_LOOKS, len(self._turns))):
            name = self._turns.popleft()
            if name not in self._segments:
                continue  # it was let go to make room
            if exists(name):
                self._turns.append(name)
            else:
                self._segments.pop(name)[0].close()
