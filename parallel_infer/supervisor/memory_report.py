"""What shared memory a configuration needs, ring by ring, and whether this machine has it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from parallel_infer.errors import ConfigError

FOLDER = Path("/dev/shm")
_MEBI = 1 << 20
_STEP = 64  # MB; a size to ask for is rounded up to a multiple


class Ring(Protocol):
    """One ring of a plan; sizes in bytes."""

    @property
    def name(self) -> str: ...
    @property
    def slots(self) -> int: ...
    @property
    def slot_size(self) -> int: ...
    @property
    def total(self) -> int: ...


class Plan(Protocol):
    """What `parallel_infer.supervisor.plan.make_plan` returns, as far as memory goes."""

    @property
    def rings(self) -> Sequence[Ring]: ...
    @property
    def total(self) -> int: ...


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """How much shared memory there is, in bytes."""

    size: int
    free: int

    @property
    def used(self) -> int:
        return self.size - self.free


def shared_memory(folder: Path = FOLDER) -> SharedMemory:
    """The shared memory of this machine or container. Raises ConfigError where there is none."""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        raise ConfigError(f"this machine has no shared memory at {folder}: {error.strerror}") from error
    if found.f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"the shared memory of this machine, {folder}, may not be written by this user")
    return SharedMemory(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def check_memory(plan: Plan, memory: SharedMemory) -> None:
    """Refuse a plan that does not fit. Raises ConfigError.

    Found here it is one clear sentence before anything started, and not a failure half way through the start. What
    clients borrow (lent_memory_mb) is left out: it is made when asked for, and refused where there is no room.
    """
    if plan.total > memory.free:
        remedies = f"{how_to_give(plan.total, memory)} {_how_to_need_less(plan)}"
        raise ConfigError(f"{_shortage(plan.total, memory)} {remedies}")


def how_to_give(needed: int, memory: SharedMemory) -> str:
    """How to make /dev/shm large enough for `needed` bytes more than is used now."""
    wanted = -(-(needed + memory.used) // (_STEP * _MEBI)) * _STEP
    return (
        f"To give it more: in Docker, start the container with --shm-size={wanted}m; in Kubernetes, mount an emptyDir "
        f"of medium Memory and that size at {FOLDER}; elsewhere, as root, mount -o remount,size={wanted}m {FOLDER}."
    )


def ring_rows(plan: Plan) -> list[tuple[str, str, str, str]]:
    """The rings as a table: name, slots, size of a slot, size in all; the last row is the sum."""
    rows = [(ring.name, str(ring.slots), size_text(ring.slot_size), size_text(ring.total)) for ring in plan.rings]
    return [*rows, ("all", "", "", size_text(plan.total))]


def as_dict(plan: Plan, memory: SharedMemory) -> dict[str, Any]:
    """The same as plain values, in bytes."""
    rings = [
        {"name": ring.name, "slots": ring.slots, "slot_size": ring.slot_size, "total": ring.total}
        for ring in plan.rings
    ]
    return {
        "rings": rings,
        "total": plan.total,
        "shared_memory": {"size": memory.size, "free": memory.free},
        "fits": plan.total <= memory.free,
    }


def size_text(count: float) -> str:
    """Bytes as people say them, in powers of 1024: "12.3 MB"."""
    for unit in ("B", "KB", "MB", "GB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


def _shortage(needed: int, memory: SharedMemory) -> str:
    return (
        f"not enough shared memory: {size_text(needed)} are needed and {FOLDER} has {size_text(memory.free)} free of "
        f"{size_text(memory.size)}."
    )


def _how_to_need_less(plan: Plan) -> str:
    text = (
        "To need less: say --fit-shared-memory, or lower shared_memory_mb, max_batch_size, instances or max_output_mb"
    )
    if not plan.rings:
        return text
    largest = max(plan.rings, key=lambda ring: ring.total)
    return f"{text}; the largest ring is {largest.name!r} with {size_text(largest.total)}"
