"""Rings lent to clients on the same machine, who write frames straight into them.

A lent ring belongs to one client alone, so a client that misbehaves can damage nobody's pixels but its own. The client
keeps track of its slots; the gateway only checks that what a request names lies inside. A ring that is not used or
renewed for TTL seconds is taken back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from parallel_infer.errors import BadInput, ConfigError, ResourceUnavailable, UnknownRing
from parallel_infer.ipc.messages import SlotRef
from parallel_infer.protocol import LentSlot
from parallel_infer.shm.ring import Ring, byte_ring

TTL = 60.0  # seconds
_PAGE = 4096


class Lent:
    """One lent ring."""

    __slots__ = ("client", "expires", "ring", "steady")

    def __init__(self, client: bytes, ring: Ring, expires: float, *, steady: bool) -> None:
        self.client = client
        self.steady = steady  # a door's, which writes nothing into a slot before the reply
        self.ring = ring
        self.expires = expires


class Lending:
    """Every lent ring, within a budget of memory."""

    def __init__(self, segment_name: Callable[[str], str], budget: int) -> None:
        self._segment_name = segment_name
        self._budget = budget
        self._rings: OrderedDict[int, Lent] = OrderedDict()  # in the order in which they expire
        self._next = 1
        self.used = 0

    def lend(
        self, client: bytes, slots: int, size: int, now: float, *, steady: bool = False
    ) -> dict[str, int | float | str]:
        """Create a ring for a client. Raises ResourceUnavailable over the budget.

        `steady`: the client is one of the server's own doors, so that `read_steady` may read what lies in it.
        """
        size = in_pages(size)
        if self.used + slots * size > self._budget:
            raise ResourceUnavailable(
                f"no memory to lend {slots} slots of {size} bytes (option lent_memory_mb = {self._budget >> 20})"
            )
        number = self._next
        try:
            ring = Ring.create(byte_ring(self._segment_name(f"lent-{number}"), slots, size))
        except ConfigError:
            raise ResourceUnavailable("the server has no shared memory left to lend") from None
        self._next += 1
        self.used += slots * size
        self._rings[number] = Lent(client, ring, now + TTL, steady=steady)
        return {"ring": number, "segment": ring.spec.segment, "slots": slots, "size": size, "ttl": TTL}

    def renew(self, client: bytes, number: int, now: float) -> dict[str, int | float]:
        """Keep a ring for another TTL."""
        self._keep(number, self._of(client, number), now)
        return {"ring": number, "ttl": TTL}

    def ref(self, client: bytes, slot: LentSlot, now: float) -> SlotRef:
        """The slot that a request names, checked. Raises BadInput when it is not this client's or not inside."""
        lent = self._of(client, slot.ring)
        spec = lent.ring.spec
        slot_size = spec.tensors[0].size
        if slot.index >= spec.slots or slot.size > slot_size:
            raise BadInput(f"slot {slot.index} of {slot.size} bytes is outside ring {slot.ring}")
        self._keep(slot.ring, lent, now)
        return SlotRef(spec.segment, slot.index, 0, slot.size, slot_size)

    def read(self, ref: SlotRef) -> memoryview | None:
        """What lies in a lent slot; None where its ring was taken back. Its client may write there after the reply."""
        return _content(self._rings.values(), ref)

    def read_steady(self, ref: SlotRef) -> memoryview | None:
        """What lies in a slot that nobody changes before its reply; None for all others."""
        return _content((lent for lent in self._rings.values() if lent.steady), ref)

    def give_back(self, client: bytes, number: int) -> None:
        """Take a ring back that its client gives up."""
        self._of(client, number)
        self._take_back(number)

    def next_timer(self) -> float | None:
        """When the next ring expires."""
        return next(iter(self._rings.values())).expires if self._rings else None

    def expire(self, now: float) -> None:
        """Take back the rings that have expired."""
        while self._rings:
            number, lent = next(iter(self._rings.items()))
            if lent.expires > now:
                return
            self._take_back(number)

    def close(self) -> None:
        """Take every ring back."""
        for number in list(self._rings):
            self._take_back(number)

    def _keep(self, number: int, lent: Lent, now: float) -> None:
        lent.expires = now + TTL
        self._rings.move_to_end(number)

    def _of(self, client: bytes, number: int) -> Lent:
        lent = self._rings.get(number)
        if lent is None or lent.client != client:
            raise UnknownRing(f"unknown ring {number}: lend again")
        return lent

    def _take_back(self, number: int) -> None:
        ring = self._rings.pop(number).ring
        self.used -= ring.spec.slots * ring.spec.tensors[0].size
        ring.close()
        ring.unlink()


def _content(rings: Iterable[Lent], ref: SlotRef) -> memoryview | None:
    for lent in rings:
        if lent.ring.spec.segment == ref.ring:
            start = ref.index * ref.slot_size
            return memoryview(lent.ring.arrays["bytes"].data).cast("B")[start : start + ref.size]
    return None


def in_pages(size: int) -> int:
    """Bytes of whole pages that hold `size` bytes."""
    return -(-size // _PAGE) * _PAGE
