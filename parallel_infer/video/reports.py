"""What the server is told of sources that only their client knows: their state, and frames lost on the way to it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import cv2
import msgspec

from parallel_infer import protocol
from parallel_infer.answers.answer import Answer
from parallel_infer.client.connection import Connection
from parallel_infer.client.pending import Pending
from parallel_infer.errors import BadInput, InferError
from parallel_infer.limits import PREVIEW_SIDE
from parallel_infer.protocol import Counted
from parallel_infer.tracking.counting import Counts
from parallel_infer.video.events import Change, Result
from parallel_infer.video.feed import Feed
from parallel_infer.video.sources import SourceState

PERIOD = 5.0  # seconds between two reports of a state that lasts
LOOK = 2.0  # seconds between two pictures for the server's page
_LONGEST = 512  # characters of a message
_QUALITY = 80  # of the pictures' JPEG


class _Wanted(msgspec.Struct, frozen=True):
    """The result of a report; a server that says no number of pixels takes those of the default."""

    watched: bool = False
    pixels: Annotated[int, msgspec.Meta(ge=1, le=2048)] = PREVIEW_SIDE

    @property
    def side(self) -> int:
        return self.pixels if self.watched else 0


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


def _has_numbers(answer: Answer) -> bool:
    parts = answer.parts.values() if answer.parts else (answer,)
    return any(isinstance(part, Answer) and part.track_ids is not None for part in parts)


class Reports:
    """Reports each source when its state changes, and now and then; the next report makes up for one that is lost."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._told: dict[str, tuple[SourceState, float]] = {}  # the state that was told last, and when
        self._open: dict[str, Pending] = {}
        self._understood = True
        self._pictures: dict[str, bytes] = {}  # drawn, and not sent yet
        self._drawn: dict[str, float] = {}  # when a picture of a source was drawn last

    def note(self, event: Result | Change, now: float) -> None:
        """Draw a frame whose objects are followed, for somebody who looks at the source on the server's page.

        The server cannot: it knows neither their numbers nor the lines and zones.
        """
        if not isinstance(event, Result) or isinstance(event.answer, InferError) or event.pixels is None:
            return
        is_followed = event.counts is not None or _has_numbers(event.answer)
        if (
            is_followed
            and now >= self._drawn.get(event.source, -math.inf) + LOOK
            and (side := self._wanted(event.source))
        ):
            done, jpeg = cv2.imencode(".jpg", event.draw(side), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
            if done:
                self._pictures[event.source], self._drawn[event.source] = jpeg.tobytes(), now

    def _wanted(self, source: str) -> int:
        """Pixels of the longer side of the picture that somebody looks at; 0 while nobody does."""
        told = self._open.get(source)
        if told is None or not isinstance(told.outcome, msgspec.Raw):
            return 0
        try:
            return msgspec.msgpack.decode(told.outcome, type=_Wanted).side
        except msgspec.ValidationError:  # another version's
            return 0

    def step(self, feeds: Iterable[Feed], now: float) -> None:
        """Send what is due at `now` (seconds, monotonic)."""
        for feed in feeds:
            name = feed.source.name
            state, at = self._told.get(name, (None, -math.inf))
            is_news = state is not feed.state
            is_due = now >= at + PERIOD or name in self._pictures
            if self._understood and (is_news or (is_due and not feed.state.final)):
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
        self._open[name] = Pending(report, PERIOD, self._pictures.pop(name, None))
        self._connection.post(self._open[name])
