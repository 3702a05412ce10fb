"""The processes that fill slots: started, watched, reaped. Nothing is decided here."""

from __future__ import annotations

import time
from collections.abc import Iterator

from parallel_infer.ipc.channel import Watch
from parallel_infer.ipc.messages import FromChild
from parallel_infer.process.spawn import Process
from parallel_infer.supervisor.child_slot import ChildSlot
from parallel_infer.supervisor.outside import ChildEvents


class ChildProcesses:
    """See `outside.Processes`. What is readable of them wakes the watch."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._running: dict[str, Process] = {}  # by slot
        self._watched: dict[int, tuple[ChildSlot, Process]] = {}  # by descriptor

    def start(self, slot: ChildSlot) -> None:
        """Start the process that fills a slot."""
        process = Process(slot.running, slot.entry, slot.options)
        process.start()
        self._running[slot.name] = process
        for descriptor in (process.sentinel, process.connection.fileno()):
            self._watched[descriptor] = slot, process
            self._watch.add(descriptor)

    def kill(self, slot: ChildSlot) -> None:
        """Kill the slot's process; its descriptors tell of its end."""
        self._running[slot.name].kill()

    def stop(self, slot: ChildSlot) -> None:
        """Kill and reap the slot's process; its descriptors tell nothing more."""
        process = self._running.pop(slot.name)
        self._forget(process.sentinel, process.connection.fileno())
        process.kill()
        process.close()

    def ask_to_end(self, slot: ChildSlot) -> None:
        """Tell the slot's process that it is time to go."""
        self._running[slot.name].ask_to_end()

    def deliver(self, descriptor: int, events: ChildEvents) -> None:
        """Tell what the owner of a readable descriptor has said, and whether it has ended: reaped, and in this order.

        The last words of a process may say why it dies.
        """
        owner = self._watched.get(descriptor)
        if owner is None:
            return
        slot, process = owner
        for message in self._messages(process):
            events.said(slot, message)
        if descriptor == process.sentinel and descriptor in self._watched:  # what it said may have been the end of it
            events.ended(slot, self._reap(slot, process))

    def end(self, until: float) -> None:
        """Wait for everybody's end, and kill who has not ended by `until`."""
        for process in self._running.values():
            if not process.reap(max(0.0, until - time.monotonic())):
                process.kill()

    def _messages(self, process: Process) -> Iterator[FromChild]:
        """What has come, without waiting."""
        descriptor = process.connection.fileno()
        while descriptor in self._watched and process.has_message:
            message = process.receive()
            if message is None:
                self._forget(descriptor)
                return
            yield message

    def _reap(self, slot: ChildSlot, process: Process) -> int | None:
        """Reap a dead process and close its descriptors; its exit code."""
        process.reap()
        code = process.exit_code
        self._forget(process.sentinel, process.connection.fileno())
        process.close()
        del self._running[slot.name]
        return code

    def _forget(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            self._watched.pop(descriptor, None)
            self._watch.remove(descriptor)
