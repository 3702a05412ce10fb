"""What the lineup needs of the house: processes for its models, and a word when something comes."""

from __future__ import annotations

from typing import Protocol

from parallel_infer.supervisor.child_specs import Place


class ChildProcesses(Protocol):
    """Who runs the processes that models need."""

    def hire(self, place: Place) -> None:
        """Fill a new place, and keep it filled."""

    def dismiss(self, place: Place) -> None:
        """End a place and its process."""

    def listen(self, descriptor: int) -> None:
        """Call `ModelRegistry.heard` when there is something on a descriptor."""

    def ignore(self, descriptor: int) -> None:
        """No more."""

    def report(self) -> None:
        """Say how processes and models are."""

    def drain(self) -> None:
        """Stop the server when the last job is answered."""
