"""The children of a run: which slots there are, and how the processes are that fill them."""

from __future__ import annotations

import logging
import math

from parallel_infer.ipc.messages import Expect, ProcessState
from parallel_infer.supervisor.child_slot import ChildSlot, Role
from parallel_infer.supervisor.outside import Processes

log = logging.getLogger(__name__)


class Children:
    """Knows who is there, and has processes started and ended; what their ends mean is not decided here."""

    def __init__(self, processes: Processes, start_timeout: float) -> None:
        self.slots: dict[str, ChildSlot] = {}
        self._processes = processes
        self._start_timeout = start_timeout  # seconds

    def add(self, slot: ChildSlot, now: float) -> None:
        """Start a child, and start it again whenever it dies."""
        self.slots[slot.name] = slot
        self._start(slot, now)

    def remove(self, slot: ChildSlot) -> None:
        """Kill and reap a child, and do not start it again."""
        self.slots.pop(slot.name, None)
        if slot.running:
            self._processes.stop(slot)
        slot.empty()

    @property
    def all_up(self) -> bool:
        """Whether every child is up."""
        return all(slot.up for slot in self.slots.values())

    @property
    def missing(self) -> list[str]:
        """Who is not up."""
        return [slot.name for slot in self.slots.values() if not slot.up]

    @property
    def restarts(self) -> list[float]:
        """When dead children are to be started again."""
        return [slot.start_at for slot in self.slots.values() if slot.start_at is not None]

    @property
    def limits(self) -> list[float]:
        """When children that are being started count as hung."""
        return [late for slot in self.slots.values() if (late := slot.late_at) is not None]

    def start_due(self, now: float) -> None:
        """Start the dead ones whose time has come."""
        for slot in self.slots.values():
            if slot.start_at is not None and slot.start_at <= now:
                self._start(slot, now)

    def kill(self, slot: ChildSlot, why: str) -> None:
        """Kill the process of a slot, and say why; what follows is that of any death."""
        log.warning("%s is killed: it %s", slot.name, why)
        self._processes.kill(slot)

    def kill_process(self, name: str, why: str) -> None:
        """Kill the process of this name, if it is still the one that fills its slot."""
        for slot in self.slots.values():
            if slot.running == name:
                self.kill(slot, why)

    def kill_late(self, now: float) -> None:
        """Kill what hangs in its start."""
        for slot in self.slots.values():
            if slot.late_at is not None and slot.late_at <= now:
                slot.up_by = math.inf  # once
                self.kill(slot, "hangs in its start (option start_timeout_ms)")

    def ask_for_life(self, slot: ChildSlot) -> None:
        """Have a door say that it is alive."""
        self._processes.ask_for_life(slot)

    def end(self) -> None:
        """The server ends: ask doors to go, which nobody else tells, and kill what is not up.

        That holds nothing, and would not hear that it shall go.
        """
        for slot in self.slots.values():
            if slot.running and not slot.up:
                self._processes.kill(slot)
            elif slot.role == Role.DOOR and slot.running:
                self._processes.ask_to_end(slot)

    def states(self) -> dict[str, ProcessState]:
        """How each is, for the status."""
        return {slot.name: ProcessState("up" if slot.up else "down", slot.restarts) for slot in self.slots.values()}

    def introduction(self) -> Expect:
        """Who lives, for a dispatcher that has just started."""
        workers: list[str] = []
        starting: list[str] = []
        gateway = ""
        for slot in self.slots.values():
            if slot.running and slot.role == Role.WORKER:
                (workers if slot.up else starting).append(slot.running)
            elif slot.running and slot.role == Role.GATEWAY:
                gateway = slot.running
        return Expect(tuple(workers), gateway, tuple(starting))

    def _start(self, slot: ChildSlot, now: float) -> None:
        slot.fill(now + self._start_timeout)
        self._processes.start(slot)
