"""How streams are treated, the same for all sources of one `Streams`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from parallel_infer.tracking.settings import Tracking
from parallel_infer.video.sources import Source


class Drop(Enum):
    """Which frame gives way where frames come faster than answers."""

    NONE = "none"  # no frame: the source waits
    OLDEST = "oldest"  # the oldest one of a short queue
    LATEST = "latest"  # all but the newest one, here and inside the server


BACKLOG = 4  # frames of an "oldest" source that wait to be sent
_IN_FLIGHT = {Drop.NONE: 8, Drop.OLDEST: 4, Drop.LATEST: 3}  # sent and not answered; more only makes frames older
_WAITING = {Drop.NONE: 0, Drop.OLDEST: BACKLOG, Drop.LATEST: 1}
_SPARE = 2  # one that is being filled, one that was filled and is not yet known of


@dataclass(frozen=True)
class StreamSettings:
    """Times in seconds. `drop` None: every frame of files and folders, the latest of live sources."""

    drop: Drop | None = None  # which frame gives way; None: none of files and folders, all but the latest of live ones
    max_age: float | None = None  # a frame older than this, in seconds, is not inferred
    fps: float | None = None  # at most so many frames per second of a source are used
    timeout: float = 30.0  # seconds that one frame may take, where max_age is not less
    silence: float = 10.0  # a capture process that delivers nothing for so many seconds is restarted
    opening: float = 20.0  # seconds that a source may take to open
    first_pause: float = 1.0  # seconds before a lost source is tried again; doubles with each try
    longest_pause: float = 30.0  # the most that first_pause grows to
    attempts: int | None = None  # tries without a frame after which a lost source has failed; None: it never fails
    skip_still: float | None = None  # 0 to 255: frames that differ by less get the last answer; None: none does
    still_for: float = 10.0  # seconds that the answer of an inferred frame may be used for others
    track: Tracking | None = None  # how objects are followed and counted; None: they are not
    options: dict[str, Any] = field(default_factory=dict)  # options of the model's task, such as confidence

    def drop_of(self, source: Source) -> Drop:
        """The policy for one source."""
        return self.drop or (Drop.LATEST if source.live else Drop.NONE)

    def in_flight(self, source: Source) -> int:
        """Frames of this source that may be sent and not answered."""
        return _IN_FLIGHT[self.drop_of(source)]

    def waiting(self, source: Source) -> int | None:
        """Frames of this source that may wait to be sent; None: as many as there is room for."""
        return _WAITING[self.drop_of(source)] or None

    def slots(self, source: Source) -> int:
        """Frames of this source in memory at a time."""
        drop = self.drop_of(source)
        return _IN_FLIGHT[drop] + _WAITING[drop] + _SPARE
