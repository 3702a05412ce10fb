"""Who is around the gateway's core: the supervisor and the public addresses, as it sees them."""

from __future__ import annotations

from typing import Any, Protocol

from parallel_infer.ipc.messages import FromChild


class Parent(Protocol):
    """The supervisor, as its children see it."""

    def tell(self, message: FromChild) -> None:
        """Tell it how this process goes."""


class Doors(Protocol):
    """The public addresses."""

    def open(self) -> tuple[str, ...]:
        """Let clients in; the addresses that are told to them, none where they are open already."""

    def tell(self, error: tuple[str, str, str]) -> None:
        """Send an error (code, text, reason) to each client that wants to know of a stop, and to those that come."""

    def has_strangers(self) -> bool:
        """Whether there are clients that `tell` does not reach."""

    def is_read(self) -> bool:
        """Whether every client has taken what was sent to it."""

    def status(self) -> dict[str, Any]:
        """Counters of connections."""
