"""What the model registry needs of the process supervisor."""

from __future__ import annotations

from typing import Protocol

from parallel_infer.supervisor.child_specs import ChildSlot


class ChildProcesses(Protocol):
    """Who runs the processes that models need."""

    def start_child(self, slot: ChildSlot) -> None:
        """Start a child, and start it again whenever it dies."""

    def stop_child(self, slot: ChildSlot) -> None:
        """Kill a child, and do not start it again."""

    def watch(self, descriptor: int) -> None:
        """Call `ModelRegistry.handle_readable` when a descriptor becomes readable."""

    def unwatch(self, descriptor: int) -> None:
        """Watch a descriptor no longer."""

    def report(self) -> None:
        """Tell the dispatcher how processes and models are, for the status."""

    def drain(self) -> None:
        """Stop the server when the last job is answered."""
