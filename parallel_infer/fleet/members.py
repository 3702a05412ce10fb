"""Who is in a fleet: the core of the registry, without Ray and without a clock of its own.

Each node says again and again that it is there, so that a registry that was started anew knows all of them soon. A
router loses a silent server by itself, within `silence_ms`; the registry only forgets those that are gone for good.
"""

from __future__ import annotations

from dataclasses import dataclass

BEAT = 1.0  # seconds between two beats of a node; one registry takes about a thousand beats a second
FORGOTTEN = 10 * BEAT  # seconds without one
SETTLED = 2.5 * BEAT  # seconds after which a new registry has heard of everybody


@dataclass(slots=True)
class _Member:
    address: str
    last: float  # seconds, when it was heard of


class Members:
    """Nodes by name, with the address of each one's server."""

    def __init__(self, now: float) -> None:
        self._members: dict[str, _Member] = {}
        self._settled = now + SETTLED
        self.version = 0  # grows with every change of `addresses`

    def beat(self, name: str, address: str, now: float) -> None:
        """A node is there. One that comes back under another address, or takes another's, replaces that."""
        known = self._members.get(name)
        if known is not None and known.address == address:
            known.last = now
            return
        for other in [other for other, member in self._members.items() if member.address == address]:
            del self._members[other]
        self._members[name] = _Member(address, now)
        self.version += 1

    def leave(self, name: str) -> None:
        """A node takes no new jobs from now on."""
        if self._members.pop(name, None) is not None:
            self.version += 1

    def forget_silent(self, now: float) -> None:
        """Drop those that have not been heard of for long."""
        for name in [name for name, member in self._members.items() if now - member.last > FORGOTTEN]:
            self.leave(name)

    def addresses(self) -> list[str]:
        """The servers' addresses, each once, in an order that does not change by itself."""
        return sorted(member.address for member in self._members.values())

    def settles_in(self, now: float) -> float:
        """Seconds until it can be told who is there; until then some have not been heard of yet."""
        return max(0.0, self._settled - now)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is there."""
        return not self._members
