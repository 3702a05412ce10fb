"""Fair admission: while several clients want something, none takes more than its part of a queue or of the slots.

A client is one connection. It is active for a model while it has a job of that model pending, or asked for one within
the last second, so that one whose requests were all refused counts as well.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from parallel_infer.errors import QueueFull

ACTIVE = 1.0  # seconds after its last request for which a client counts
RETRY_AFTER = 0.02  # seconds; what a client is told that has its part of something
_LOOK = 0.25  # seconds between checks of who is still active


class Share:
    """The jobs and slots of one client."""

    __slots__ = ("pending", "seen", "slots")

    def __init__(self) -> None:
        self.pending: defaultdict[str, int] = defaultdict(int)  # jobs by model
        self.slots: defaultdict[str, int] = defaultdict(int)  # ingress slots by ring
        self.seen: dict[str, float] = {}  # when it last asked, by model

    def enter(self, model: str, ring: str) -> None:
        """A job of this client was admitted."""
        self.pending[model] += 1
        self.slots[ring] += 1

    def leave(self, model: str, ring: str) -> None:
        """A job of this client was answered."""
        self.pending[model] -= 1
        self.slots[ring] -= 1


class Shares:
    """Every active client."""

    def __init__(self) -> None:
        self._shares: dict[bytes, Share] = {}
        self._active: Counter[str] = Counter()  # clients by model
        self._next_look = 0.0

    @property
    def clients(self) -> int:
        """How many clients are active."""
        return len(self._shares)

    def of(self, client: bytes, model: str, now: float) -> Share:
        """A client that asks for a model."""
        if now >= self._next_look:
            self._look(now)
        share = self._shares.get(client)
        if share is None:
            share = self._shares[client] = Share()
        if model not in share.seen:
            self._active[model] += 1
        share.seen[model] = now
        return share

    def check(self, share: Share, model: str, queue_size: int) -> None:
        """Raises QueueFull where the client has its part of the model's queue already."""
        active = self._active[model]
        if active > 1 and share.pending[model] >= max(1, queue_size // active):
            raise QueueFull(
                f"{active} clients share the {queue_size} places of this model's queue (option queue_size), and this "
                f"client has its {max(1, queue_size // active)}; try again later",
                RETRY_AFTER,
            )

    def _look(self, now: float) -> None:
        self._next_look = now + _LOOK
        for client, share in list(self._shares.items()):
            for model in [model for model, seen in share.seen.items() if seen < now - ACTIVE]:
                if not share.pending[model]:
                    del share.seen[model], share.pending[model]
                    self._active[model] -= 1
            if not share.seen:
                del self._shares[client]
            for ring in [ring for ring, slots in share.slots.items() if not slots]:  # lent rings come and go
                del share.slots[ring]
