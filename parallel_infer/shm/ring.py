"""Rings: equal slots in one segment, and who may use which.

`RingSpec` says where things lie, `Ring` maps it, `Slots` is the owner's private list of what is free. Nothing but
payload lies in shared memory: no lock, no counter, no generation; those are private memory of the one owner.

    segment of a ring with S slots and tensors a, b:

    0                    align                      align
    ├── a: [S, *shape_a] ──┤── b: [S, *shape_b] ──────┤
      slot 0 | slot 1 | …    slot 0 | slot 1 | …

Each tensor's slots are one contiguous array, so neighbouring rows are a batch without a copy. An output ring is the
same with a leading batch dimension in each shape; an ingress ring has one tensor, uint8 [slot size].
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from parallel_infer.model_spec import TensorSpec
from parallel_infer.shm.segment import Segment

_ALIGN = 4096


class RingSpec(Struct, frozen=True):
    """Where a ring lies: its segment, the number of slots, and the tensors of one slot."""

    segment: str
    slots: int
    tensors: tuple[TensorSpec, ...]

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each tensor's array begins, in bytes."""
        offsets, at = [], 0
        for tensor in self.tensors:
            offsets.append(at)
            at += math.ceil(tensor.size * self.slots / _ALIGN) * _ALIGN
        return tuple(offsets)

    @property
    def size(self) -> int:
        """Bytes of the whole segment."""
        return sum(max(1, math.ceil(tensor.size * self.slots / _ALIGN)) * _ALIGN for tensor in self.tensors)


def byte_ring(segment: str, slots: int, slot_size: int) -> RingSpec:
    """A ring of plain bytes, for payloads."""
    return RingSpec(segment, slots, (TensorSpec("bytes", "uint8", (slot_size,)),))


class Ring:
    """A mapped ring. `arrays[name]` is [slots, *shape]; indexing it gives views that pin the mapping."""

    def __init__(self, spec: RingSpec, segment: Segment) -> None:
        self.spec = spec
        self._segment = segment
        self.arrays: dict[str, npt.NDArray[Any]] = {
            tensor.name: segment.view(tensor.dtype, (spec.slots, *tensor.shape), offset)
            for tensor, offset in zip(spec.tensors, spec.offsets, strict=True)
        }

    @classmethod
    def create(cls, spec: RingSpec) -> Ring:
        """Create and reserve the segment. Raises ConfigError when /dev/shm has no room."""
        return cls(spec, Segment.create(spec.segment, spec.size))

    @classmethod
    def attach(cls, spec: RingSpec) -> Ring:
        """Map a ring that another process created."""
        return cls(spec, Segment.attach(spec.segment))

    def close(self) -> None:
        """Give up this mapping (views handed out keep it until they die)."""
        self.arrays.clear()
        self._segment.close()

    def unlink(self) -> None:
        """Remove the segment's name; the creator's duty."""
        self._segment.unlink()


class SlotState(IntEnum):
    """What a slot is, in its owner's book."""

    FREE = 0
    CLAIMED = 1


class Slots:
    """The owner's book of a ring: which slots are free, and the generation of each.

    A slot is claimed with a generation; a release with an older one is refused, so a late message does no harm.
    Positions are claimed in ring order, so that jobs that arrive together lie together.
    """

    __slots__ = ("_cursor", "_free", "_generations", "_states", "count")

    def __init__(self, count: int) -> None:
        self.count = count
        self._states = bytearray(count)
        self._generations = [0] * count
        self._free = count
        self._cursor = 0

    @property
    def free(self) -> int:
        """How many slots can be claimed."""
        return self._free

    def claim(self) -> int | None:
        """The next free slot in ring order, or None when the ring is full."""
        if not self._free:
            return None
        index = self._states.find(0, self._cursor)
        if index < 0:
            index = self._states.find(0)
        self._states[index] = SlotState.CLAIMED
        self._free -= 1
        self._generations[index] += 1
        self._cursor = index + 1 if index + 1 < self.count else 0
        return index

    def generation(self, index: int) -> int:
        """The generation of the slot's present or last claim."""
        return self._generations[index]

    def release(self, index: int, generation: int) -> bool:
        """Free a slot; False (and nothing done) when it is not claimed under that generation any more."""
        if self._states[index] != SlotState.CLAIMED or self._generations[index] != generation:
            return False
        self._states[index] = SlotState.FREE
        self._free += 1
        return True


def batch_view(array: npt.NDArray[Any], rows: tuple[int, ...]) -> npt.NDArray[Any] | None:
    """Rows of `array` [slots, ...] as one view [n, ...] where they are neighbours in rising order, else None."""
    first = rows[0]
    if all(row == first + step for step, row in enumerate(rows)):
        return array[first : first + len(rows)]
    return None


def gather_into(array: npt.NDArray[Any], rows: tuple[int, ...], batch: npt.NDArray[Any]) -> None:
    """Copy rows of `array` [slots, ...] to the front of `batch` [n or more, ...]: where they are not neighbours."""
    np.take(array, rows, axis=0, out=batch[: len(rows)], mode="clip")
