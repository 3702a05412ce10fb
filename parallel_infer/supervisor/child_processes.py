"""The processes that fill slots: started, watched, reaped. Nothing is decided here."""

from __future__ import annotations

import time

from parallel_infer.ipc.channel import Watch
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
        self._running[slot.name] = process
        descriptor = process.connection.fileno()
        self._watched[descriptor] = slot, process
        self._watch.add(descriptor)

    def kill(self, slot: ChildSlot) -> None:
        """Kill the slot's process; its descriptor tells of its end."""
        self._running[slot.name].kill()

    def stop(self, slot: ChildSlot) -> None:
        """Kill and reap the slot's process; its descriptor tells nothing more."""
        process = self._running.pop(slot.name)
        process.kill()
        self._close(process)

    def ask_to_end(self, slot: ChildSlot) -> None:
        """Tell the slot's process that it is time to go."""
        self._running[slot.name].ask_to_end()

    def ask_for_life(self, slot: ChildSlot) -> None:
        """Have the slot's process, a door's, say that it is alive."""
        self._running[slot.name].ask_for_life()

    def deliver(self, descriptor: int, events: ChildEvents) -> None:
        """Tell what the owner of a readable descriptor has said, and whether it has ended: reaped, and in this order.

        The last words of a process may say why it dies.
        """
        if (owner := self._watched.get(descriptor)) is None:
            return
        slot, process = owner
        while self._watched.get(descriptor) is owner and process.has_message:
            message = process.receive()
            if message is not None:
                events.said(slot, message)  # which may be the end of it
                continue
            process.ended(None)
            del self._running[slot.name]
            self._close(process)
            events.ended(slot, process.exit_code)

    def end(self, until: float) -> None:
        """Wait for everybody's end, and kill who has not ended by `until`."""
        for process in self._running.values():
            if not process.ended(max(0.0, until - time.monotonic())):
                process.kill()

    def _close(self, process: Process) -> None:
        descriptor = process.connection.fileno()
        del self._watched[descriptor]
        self._watch.remove(descriptor)
        process.close()
