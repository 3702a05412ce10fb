"""The children of a run: which slots there are, which processes fill them, and which descriptors tell of them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator

from parallel_infer.ipc.channel import Watch
from parallel_infer.ipc.messages import Expect, FromChild, ProcessState
from parallel_infer.process.spawn import Process
from parallel_infer.supervisor.child_specs import ChildSlot, Role

log = logging.getLogger(__name__)


class Children:
    """Starts, watches and ends processes; what their messages and their deaths mean is not decided here."""

    def __init__(self, watch: Watch, start_timeout: float) -> None:
        self.slots: dict[str, ChildSlot] = {}
        self._watch = watch
        self._start_timeout = start_timeout  # seconds
        self._watched: dict[int, tuple[ChildSlot, Process]] = {}

    def start_child(self, slot: ChildSlot) -> None:
        """Start a child, and start it again whenever it dies."""
        self.slots[slot.name] = slot
        self.start(slot)

    def start(self, slot: ChildSlot) -> None:
        """Start a process in a slot."""
        process = slot.start()
        slot.up_by = time.monotonic() + self._start_timeout
        for descriptor in (process.sentinel, process.connection.fileno()):
            self._watched[descriptor] = slot, process
            self._watch.add(descriptor)

    def stop_child(self, slot: ChildSlot) -> None:
        """Kill a child, and do not start it again."""
        self.slots.pop(slot.name, None)
        process, slot.process = slot.process, None
        if process is not None:
            self._forget(process.sentinel, process.connection.fileno())
            process.kill()
            process.close()

    def owner_of(self, descriptor: int) -> tuple[ChildSlot, Process] | None:
        """The slot and the process that a descriptor belongs to."""
        return self._watched.get(descriptor)

    def messages(self, process: Process) -> Iterator[FromChild]:
        """The messages of a child that have come, without waiting."""
        descriptor = process.connection.fileno()
        while descriptor in self._watched and process.has_message:
            message = process.receive()
            if message is None:
                self._forget(descriptor)
                return
            yield message

    def reap(self, process: Process) -> int | None:
        """Reap a dead child and close its descriptors; its exit code."""
        process.reap()
        code = process.exit_code
        self._forget(process.sentinel, process.connection.fileno())
        process.close()
        return code

    def kill(self, worker: str, why: str) -> None:
        """Kill the process of this name, if it is the one that fills its slot."""
        for slot in self.slots.values():
            if slot.process is not None and slot.process.name == worker:
                log.warning("%s is killed: it %s", slot.name, why)
                slot.process.kill()

    def end_late(self, now: float) -> None:
        """Kill what hangs in its start; what follows is that of any death."""
        for slot in self.slots.values():
            if slot.late_at is not None and slot.late_at <= now:
                log.warning("%s is killed: it hangs in its start (option start_timeout_ms)", slot.name)
                slot.up_by = math.inf  # once
                if slot.process is not None:
                    slot.process.kill()

    def end(self, until: float) -> None:
        """Wait for everybody's end, and kill who has not ended by `until`."""
        for slot, process in set(self._watched.values()):
            if slot.role == Role.DOOR:
                process.ask_to_end()
        for slot, process in set(self._watched.values()):
            # What is not up holds nothing, and would not hear that it shall go.
            if not slot.up or not process.reap(max(0.0, until - time.monotonic())):
                process.kill()

    def processes(self) -> dict[str, ProcessState]:
        """How each is, for the status."""
        return {slot.name: ProcessState("up" if slot.up else "down", slot.restarts) for slot in self.slots.values()}

    def introduction(self) -> Expect:
        """Who lives, for a dispatcher that has just started."""
        workers: list[str] = []
        starting: list[str] = []
        gateway = ""
        for slot in self.slots.values():
            if slot.process is not None and slot.role == Role.WORKER:
                (workers if slot.up else starting).append(slot.process.name)
            elif slot.process is not None and slot.role == Role.GATEWAY:
                gateway = slot.process.name
        return Expect(tuple(workers), gateway, tuple(starting))

    def _forget(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            self._watched.pop(descriptor, None)
            self._watch.remove(descriptor)
