"""What became of the frames of a source: every one is in exactly one of the counts."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

_REMEMBERED = 10_000  # ages


@dataclass
class Tally:
    """Counts of frames since the start. `ages` are seconds from capture to answer, of the last frames."""

    answered: int = 0
    still: int = 0  # those of them that got the answer of an earlier frame, because they do not differ from it
    dropped: int = 0  # gave way to newer ones: in the capture process, here, or inside the server
    expired: int = 0  # older than max_age before they were inferred
    failed: int = 0  # answered with an error, or not decodable
    restarts: int = 0  # of the capture
    ages: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    @property
    def frames(self) -> int:
        """All frames that are accounted for."""
        return self.answered + self.dropped + self.expired + self.failed

    def age(self, percent: float) -> float | None:
        """A percentile of the ages, in seconds; None before the first answer."""
        return float(np.percentile(self.ages, percent)) if self.ages else None

    def counts(self) -> dict[str, int]:
        """The counts by name."""
        names = ("frames", "answered", "still", "dropped", "expired", "failed", "restarts")
        return {name: getattr(self, name) for name in names}
