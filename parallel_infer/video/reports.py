"""What the server is told of sources that only their client knows: their state, and frames lost on the way to it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from parallel_infer import protocol
from parallel_infer.client.connection import Connection
from parallel_infer.client.pending import Pending
from parallel_infer.errors import BadInput
from parallel_infer.protocol import Counted
from parallel_infer.tracking.counting import Counts
from parallel_infer.video.feed import Feed
from parallel_infer.video.sources import SourceState

PERIOD = 5.0  # seconds between two reports of a state that lasts
_LONGEST = 512  # characters of a message


def counted(counts: Counts | None) -> tuple[protocol.Counted, ...]:
    """Counts as a report has them, the greatest first where they are too many."""
    if counts is None:
        return ()
    found = [
        *(Counted("in", line.name, *one) for line in counts.lines for one in line.entered.items()),
        *(Counted("out", line.name, *one) for line in counts.lines for one in line.left.items()),
        *(Counted("entered", zone.name, *one) for zone in counts.zones for one in zone.entered.items()),
        *(
            Counted("present", zone.name, one, zone.present.get(one, 0))
            for zone in counts.zones
            for one in zone.entered
        ),
    ]
    greatest = sorted(found, key=lambda one: -one.number)[: protocol.MAX_COUNTS]
    return tuple(msgspec.structs.replace(one, kind=one.kind[: protocol.MAX_COUNTED]) for one in greatest)


class Reports:
    """Reports each source when its state changes, and now and then; the next report makes up for one that is lost."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._told: dict[str, tuple[SourceState, float]] = {}  # the state that was told last, and when
        self._open: dict[str, Pending] = {}
        self._understood = True

    def step(self, feeds: Iterable[Feed], now: float) -> None:
        """Send what is due at `now` (seconds, monotonic)."""
        for feed in feeds:
            name = feed.source.name
            state, at = self._told.get(name, (None, -math.inf))
            is_news = state is not feed.state
            if self._understood and (is_news or (now >= at + PERIOD and not feed.state.final)):
                self._report(feed, name, now, is_news)

    def _report(self, feed: Feed, name: str, now: float, is_news: bool) -> None:
        before = self._open.get(name)
        if before is not None:
            if isinstance(before.outcome, BadInput):  # an older server, which knows no reports
                self._understood = False
                return
            if before.outcome is None and not is_news:
                return
        self._told[name] = feed.state, now
        report = protocol.Report(
            id=self._connection.number(),
            source=name,
            state=feed.state.value,
            message=feed.message[:_LONGEST],
            dropped=feed.tally.dropped,
            expired=feed.tally.expired,
            failed=feed.tally.failed,
            restarts=feed.tally.restarts,
            counts=counted(feed.counts),
        )
        self._open[name] = Pending(report, PERIOD)
        self._connection.post(self._open[name])
