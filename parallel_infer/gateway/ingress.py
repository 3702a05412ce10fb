"""Where payloads lie between admission and reply: byte rings of a few slot sizes, owned by the gateway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from parallel_infer.ipc.messages import SlotRef
from parallel_infer.shm.ring import Ring, RingSpec, Slots

_NOTHING: Mapping[str, int] = MappingProxyType({})


class IngressRing:
    """One size class."""

    def __init__(self, spec: RingSpec) -> None:
        self.slots = Slots(spec.slots)
        self.name = spec.segment
        self.slot_size = spec.tensors[0].size
        self._ring = Ring.attach(spec)
        self._bytes = memoryview(self._ring.arrays["bytes"].data).cast("B")

    def store(self, payload: Any, size: int) -> SlotRef | None:
        """Copy a payload into a free slot: the one copy on its way in. None when every slot is taken."""
        index = self.slots.claim()
        if index is None:
            return None
        start = index * self.slot_size
        self._bytes[start : start + size] = payload
        return SlotRef(self.name, index, self.slots.generation(index), size, self.slot_size)

    def read(self, ref: SlotRef) -> memoryview:
        """The payload in a slot, where it lies."""
        start = ref.index * self.slot_size
        return self._bytes[start : start + ref.size]


class Ingress:
    """All size classes, smallest first; a payload whose class is full goes to the next larger one."""

    def __init__(self, specs: Iterable[RingSpec]) -> None:
        self.rings = sorted((IngressRing(spec) for spec in specs), key=lambda ring: ring.slot_size)
        self._by_name = {ring.name: ring for ring in self.rings}
        self._shared: Counter[tuple[str, int]] = Counter()  # further jobs that need a slot

    @property
    def largest(self) -> int:
        """Bytes of the largest payload that fits."""
        return self.rings[-1].slot_size

    def store(self, payload: Any, size: int, taken: Mapping[str, int] = _NOTHING, clients: int = 1) -> SlotRef | None:
        """Copy a payload into the smallest free slot it fits; None when there is none.

        Where several clients are active, one that has `taken` its part of a ring's slots gets no further one of it.
        """
        for ring in self.rings:
            if ring.slot_size >= size:
                if clients > 1 and taken.get(ring.name, 0) >= max(1, ring.slots.count // clients):
                    continue
                ref = ring.store(payload, size)
                if ref is not None:
                    return ref
        return None

    def read(self, ref: SlotRef) -> memoryview | None:
        """A payload where it lies; None where that is a lent slot, whose content its client may change."""
        ring = self._by_name.get(ref.ring)
        return None if ring is None else ring.read(ref)

    def share(self, ref: SlotRef) -> None:
        """One job more needs a slot that is taken: it is released once more before it is free."""
        if ref.ring in self._by_name:
            self._shared[ref.ring, ref.index] += 1

    def release(self, ref: SlotRef) -> None:
        """Free a slot that no other job shares; lent slots belong to their client and are left alone."""
        ring = self._by_name.get(ref.ring)
        place = ref.ring, ref.index
        if self._shared[place] > 1:
            self._shared[place] -= 1
        elif self._shared.pop(place, 0):
            pass  # one job is left
        elif ring is not None:
            ring.slots.release(ref.index, ref.generation)

    def status(self, known: Iterable[SlotRef]) -> list[dict[str, int]]:
        """Slots by size class. `leaked` are those that are taken though none of the `known` refs is there: always 0."""
        taken = Counter(ref.ring for ref in set(known))
        return [
            {
                "slot_size": ring.slot_size,
                "slots": ring.slots.count,
                "free": ring.slots.free,
                "leaked": ring.slots.count - ring.slots.free - taken[ring.name],
            }
            for ring in self.rings
        ]
