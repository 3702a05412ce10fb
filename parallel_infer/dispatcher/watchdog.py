"""The watchdog over workers: it counts only while somebody keeps it.

A process that was itself not running (the machine was suspended, or everything stopped) finds on waking that much time
has passed in which nobody could work. Whoever watches with a clock therefore looks at it often enough to notice.
"""

from __future__ import annotations

STEP = 0.5  # seconds between two looks, while there is something to watch
_LATE = 0.25  # seconds that a look may come late on a busy machine


class Watchdog:
    """When somebody last looked."""

    def __init__(self) -> None:
        self._next: float | None = None

    @property
    def due(self) -> float | None:
        """When to look again; None while there is nothing to watch."""
        return self._next

    def lost(self, now: float) -> float:
        """Seconds by which the look that was due is too late: nobody was there to look. 0.0 where it is in time."""
        late = 0.0 if self._next is None else now - self._next
        return late if late > _LATE else 0.0

    def look(self, now: float, *, watched: bool) -> None:
        """Somebody looks; `watched`: there is something that has to be looked at again."""
        self._next = now + STEP if watched else None
