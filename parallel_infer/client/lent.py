"""Slots that the server lent: frames are written straight into its shared memory and travel as a number.

A connection asks for a ring when it meets its first frame and goes on sending bytes until the ring is there. A slot
is claimed once by everybody who uses it (the request that carries it, the `with client.frame(...)` that fills it) and
is free again when the last of them released it. A request that timed out keeps its slot until the late reply, because
the server may still be reading it; a ring whose slots are all kept like that is given back for a fresh one.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from parallel_infer.client.pending import Outcome, Pending
from parallel_infer.errors import ResourceUnavailable
from parallel_infer.limits import ALWAYS_READ
from parallel_infer.protocol import GiveBack, Lend, LentSlot
from parallel_infer.shm.ring import Ring, byte_ring

if TYPE_CHECKING:
    from parallel_infer.client.connection import Connection

_PAGE = 4096
_MAX_RING = 64 * 2**20  # bytes one connection asks for at most
_MOST_SLOTS = 1024
_GROWTH = 1.25  # times the size of its slots that a ring for larger payloads has at least
_LEND_TIMEOUT = 5.0  # seconds
_ASK_AGAIN = 1.0  # seconds after the server had no room


class Grant(msgspec.Struct, frozen=True):
    """What the server says when it lends."""

    ring: int
    segment: str
    slots: int
    size: int  # bytes per slot
    ttl: float  # seconds the ring lives without being renewed


class LentRing:
    """A ring of the server, mapped here, and this client's private list of its free slots."""

    def __init__(self, grant: Grant, asked: float) -> None:
        self.id = grant.ring
        self.size = grant.size
        self.slots = grant.slots
        self.ttl = grant.ttl
        self.renewed = asked  # when the request left: the server counts from later
        self.filled = asked  # when more than half of a slot was needed last
        self.retired = False
        self._memory = Ring.attach(byte_ring(grant.segment, grant.slots, grant.size)).arrays["bytes"]
        self._free = list(range(grant.slots))
        self._fenced = 0

    @property
    def unused(self) -> bool:
        """Whether every slot is free."""
        return len(self._free) == self.slots

    @property
    def blocked(self) -> bool:
        """Whether every slot waits for a reply that may never come."""
        return self._fenced >= self.slots

    def claim(self, size: int) -> Slot | None:
        """A free slot for `size` bytes, or None."""
        if size > self.size or not self._free:
            return None
        index = self._free.pop()
        return Slot(self, index, self._memory[index, :size])

    def release(self, index: int) -> None:
        """Take a slot back."""
        self._free.append(index)

    def fence(self, count: int) -> None:
        """Count slots (or, negative, uncount) whose request nobody waits for."""
        self._fenced += count


class Slot:
    """A claimed slot and its bytes, uint8 [size]."""

    __slots__ = ("_claims", "_fenced", "array", "index", "ring")

    def __init__(self, ring: LentRing, index: int, array: npt.NDArray[np.uint8]) -> None:
        self.ring = ring
        self.index = index
        self.array = array
        self._claims = 1
        self._fenced = False

    @property
    def data(self) -> memoryview:
        """The bytes of the slot."""
        return self.array.data

    @property
    def reference(self) -> LentSlot:
        """What a request says instead of carrying the payload."""
        return LentSlot(self.ring.id, self.index, self.array.size)

    def claim(self) -> Slot:
        """One more user of this slot."""
        self._claims += 1
        return self

    def fence(self) -> None:
        """Its request timed out: only the reply frees it now."""
        self._fenced = True
        self.ring.fence(1)

    def release(self) -> None:
        """One user less; the last one frees the slot."""
        self._claims -= 1
        if self._fenced:
            self._fenced = False
            self.ring.fence(-1)
        if self._claims == 0:
            self.ring.release(self.index)


class Fences:
    """Slots of requests that nobody waits for any more, by request id: only the late reply frees them."""

    def __init__(self) -> None:
        self._slots: dict[int, Slot] = {}

    def add(self, pending: Pending) -> None:
        """Nobody waits for this one any more."""
        if pending.slot is None:
            return
        if pending.sent:
            self._slots[pending.request.id] = pending.slot
            pending.slot.fence()
        else:
            pending.slot.release()

    def release(self, number: int) -> bool:
        """A late reply came; whether it freed a slot."""
        slot = self._slots.pop(number, None)
        if slot is not None:
            slot.release()
        return slot is not None

    def clear(self) -> None:
        """Their rings are void."""
        self._slots.clear()


class LentRings:
    """The rings of one connection: the current one, and older ones that wait for their last slots."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._current: LentRing | None = None
        self._retired: list[LentRing] = []
        self._asking: Pending | None = None
        self._renewing: Pending | None = None
        self._not_before = 0.0
        self.wanted = 2  # slots, as many as there will be requests at a time

    def expect(self, requests: int) -> None:
        """So many requests are under way at once: want as many slots, in powers of two, so that few rings are made."""
        self.wanted = max(self.wanted, 1 << (requests - 1).bit_length())

    @property
    def asking(self) -> Pending | None:
        """The request for a ring that the server has not answered yet."""
        return self._asking

    def claim(self, size: int) -> Slot | None:
        """A free slot for `size` bytes. None: send bytes; where a (larger) ring would help it is asked for."""
        terms = self._connection.terms
        if size > terms.most or not (terms.known or size <= ALWAYS_READ):
            return None
        now = time.monotonic()
        self._give_back_unused()
        ring = self._current
        if ring is not None and (ring.blocked or now > ring.renewed + ring.ttl):
            self._retire(ring)
            ring = None
        if ring is None or ring.size < size or ring.slots <= self.wanted // 2:
            self._ask(size, now)
        if ring is None:
            return None
        if now > ring.renewed + ring.ttl / 3:
            self._renew(ring, now)
        if 2 * size > ring.size:
            ring.filled = now
        return ring.claim(size)

    def lost(self, ring: LentRing) -> None:
        """The server does not know this ring any more."""
        if ring is self._current:
            self._current = None
        if ring in self._retired:
            self._retired.remove(ring)

    def forget(self) -> None:
        """A new connection: nothing that was lent over the old one counts any more."""
        self._current = self._asking = self._renewing = None
        self._retired.clear()
        self._not_before = 0.0

    def close(self) -> None:
        """Give everything back."""
        rings = [*self._retired, *([self._current] if self._current is not None else [])]
        self.forget()
        for ring in rings:
            self._give_back(ring)

    def _ask(self, size: int, now: float) -> None:
        if self._asking is not None or now < self._not_before:
            return
        current = self._current
        if current is not None and size > current.size:  # payloads of many sizes shall not take a ring each
            size = max(size, min(math.ceil(_GROWTH * current.size), self._connection.terms.most))
        elif current is not None and now < current.filled + current.ttl:  # nor large and small ones in turns
            size = current.size
        size = math.ceil(max(size, 1) / _PAGE) * _PAGE
        slots = max(1, min(self.wanted, _MAX_RING // size, _MOST_SLOTS))
        if current is not None and current.size >= size and current.slots >= slots:
            return
        request = Lend(id=self._connection.number(), slots=slots, size=size)
        self._asking = Pending(request, _LEND_TIMEOUT, sink=self._lent)
        self._connection.post(self._asking)

    def _lent(self, pending: Pending, outcome: Outcome) -> None:
        if pending is not self._asking:
            return
        self._asking = None
        ring = _attached(outcome, pending.deadline - pending.timeout)
        if ring is None:
            again = isinstance(outcome, ResourceUnavailable)
            self._not_before = time.monotonic() + _ASK_AGAIN if again else math.inf
            return
        if self._current is not None:
            self._retire(self._current)
        self._current = ring
        if isinstance(pending.request, Lend) and ring.slots < pending.request.slots:
            self._not_before = time.monotonic() + _ASK_AGAIN  # the server has no more for now

    def _renew(self, ring: LentRing, now: float) -> None:
        if self._renewing is not None:
            return

        def renewed(pending: Pending, outcome: Outcome) -> Any:
            self._renewing = None
            if isinstance(outcome, msgspec.Raw):
                ring.renewed = now
            else:
                self.lost(ring)

        request = Lend(id=self._connection.number(), slots=ring.slots, size=ring.size, ring=ring.id)
        self._renewing = Pending(request, _LEND_TIMEOUT, sink=renewed)
        self._connection.post(self._renewing)

    def _retire(self, ring: LentRing) -> None:
        self._current = None
        if ring.blocked or ring.unused:
            self._give_back(ring)
        else:
            self._retired.append(ring)

    def _give_back_unused(self) -> None:
        if self._retired:
            for ring in [ring for ring in self._retired if ring.unused or ring.blocked]:
                self._retired.remove(ring)
                self._give_back(ring)

    def _give_back(self, ring: LentRing) -> None:
        self._connection.post(Pending(GiveBack(id=self._connection.number(), ring=ring.id), _LEND_TIMEOUT))


def _attached(outcome: Outcome, asked: float) -> LentRing | None:
    if not isinstance(outcome, msgspec.Raw):
        return None
    try:
        return LentRing(msgspec.msgpack.decode(outcome, type=Grant), asked)
    except (msgspec.MsgspecError, OSError, ValueError):
        return None  # another machine or mount behind the same address: bytes work everywhere
