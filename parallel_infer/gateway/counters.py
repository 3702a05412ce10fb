"""What the gateway counts of jobs: how each ended and how long it took, by model, and what became of live sources."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Container
from typing import Any

from parallel_infer import protocol
from parallel_infer.errors import Dropped
from parallel_infer.observe.histogram import JobTimes
from parallel_infer.redaction import redacted_address

MOST_SOURCES = 64  # that are counted by name
OTHERS = "(others)"  # all further ones
UNNAMED = "(unnamed)"
_QUIET = 60.0  # seconds after which a source may be counted among the others


class ModelTally:
    """One model's jobs."""

    __slots__ = ("bytes_in", "bytes_out", "cache_hits", "cache_misses", "ends", "last", "requests", "times")

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()  # "answered" or an error's code
        self.requests = 0  # answered; a door's request with several pictures or rows is one, and several jobs
        self.times = JobTimes()
        self.last = 0.0  # when it answered last; 0: never
        self.bytes_in = 0
        self.bytes_out = 0
        self.cache_hits = 0  # answered with an answer given before
        self.cache_misses = 0  # computed, though answers are kept

    def status(self, epoch: float) -> dict[str, Any]:
        """Counters; the times are told apart from them. `epoch` is the time of day at 0 of the clock, in seconds."""
        return {
            "last": round(epoch + self.last, 3) if self.last else 0.0,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "cache_hits": self.cache_hits,
            "cache_misses": self.cache_misses,
            "requests": self.requests,
            "ends": dict(self.ends),
        }


class SourceTally:
    """One live source's frames."""

    __slots__ = ("answered", "dropped", "failed", "newest", "report", "reported", "seen")

    def __init__(self) -> None:
        self.answered = self.dropped = self.failed = 0
        self.newest = 0.0  # when the newest frame that has an answer came in
        self.seen = 0.0  # when something last happened
        self.report: protocol.Report | None = None  # what its client told last
        self.reported = 0.0  # when that was

    def take(self, other: SourceTally) -> None:
        """Add the counts of another source."""
        self.answered += other.answered
        self.dropped += other.dropped
        self.failed += other.failed
        self.newest = max(self.newest, other.newest)
        self.seen = max(self.seen, other.seen)

    def status(self, now: float) -> dict[str, Any]:
        """Counters, how old the newest frame is that has an answer (seconds; None: none has), and what its client says.

        `client` is None for a source whose client says nothing.
        """
        age = round(max(0.0, now - self.newest), 3) if self.newest else None
        client = None
        if self.report is not None:
            told = ("state", "message", "dropped", "expired", "failed", "restarts")
            client = {name: getattr(self.report, name) for name in told}
            client["counts"] = [(one.what, one.place, one.kind, one.number) for one in self.report.counts]
            client["age"] = round(max(0.0, now - self.reported), 3)
        counts = {"answered": self.answered, "dropped": self.dropped, "failed": self.failed}
        return {**counts, "age": age, "client": client}


class Tally:
    """All models and sources. Clients make up the names of sources, so only so many are told apart."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._epoch = time.time() - clock()
        self._models: dict[str, ModelTally] = {}
        self._sources: dict[str, SourceTally] = {}
        self._others = SourceTally()

    def of(self, model: str) -> ModelTally:
        """A model that is or was served; "" stands for all names that never were."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = ModelTally()
        return found

    @property
    def bytes_in(self) -> int:
        """Of the payloads of all admitted jobs."""
        return sum(tally.bytes_in for tally in self._models.values())

    def frame_answered(self, source: str, received: float) -> None:
        """A live frame that came in at `received` has its answer."""
        now = self._clock()
        tally = self._source(source, now)
        tally.answered += 1
        tally.newest = max(tally.newest, received)
        tally.seen = now

    def failed(self, model: str | None, source: str, code: str) -> None:
        """A job got an error; None: the jobs of its request are counted themselves."""
        if model is not None:
            self.of(model).ends[code] += 1
        if source:
            now = self._clock()
            tally = self._source(source, now)
            tally.seen = now
            if code == Dropped.code:
                tally.dropped += 1
            else:
                tally.failed += 1

    def report(self, report: protocol.Report) -> None:
        """A client tells how its source is."""
        now = self._clock()
        tally = self._source(report.source, now)
        if tally is not self._others:
            tally.report, tally.reported, tally.seen = report, now, now

    def _source(self, name: str, now: float) -> SourceTally:
        known = self._sources.get(name)
        if known is None:
            if len(self._sources) >= MOST_SOURCES and not self._make_room(now):
                return self._others
            known = self._sources[name] = SourceTally()
        return known

    def _make_room(self, now: float) -> bool:
        """Count the source that has been quiet for longest among the others, if it is quiet."""
        quietest = min(self._sources, key=lambda name: self._sources[name].seen)
        if self._sources[quietest].seen > now - _QUIET:
            return False
        self._others.take(self._sources.pop(quietest))
        return True

    def models(self) -> dict[str, dict[str, Any]]:
        """Counters by model."""
        return {name: tally.status(self._epoch) for name, tally in self._models.items()}

    def times(self) -> dict[str, dict[str, Any]]:
        """Times by model, as JobTimes.status has them."""
        return {name: tally.times.status() for name, tally in self._models.items() if name}

    def sources(self) -> dict[str, dict[str, Any]]:
        """Counters by live source, as it is shown."""
        now = self._clock()
        found = {shown: self._sources[name].status(now) for shown, name in self._names().items()}
        return {**found, OTHERS: self._others.status(now)} if self._others.seen else found

    def source_called(self, shown: str) -> str | None:
        """A source as its client calls it, by the name under which it is shown; None where there is no such one."""
        return self._names().get(shown)

    def _names(self) -> dict[str, str]:
        """Every source's own name, by the one that is shown."""
        found: dict[str, str] = {}
        for name in self._sources:
            found[_shown(name, found)] = name
        return found


def _shown(name: str, taken: Container[str]) -> str:
    """A source as it is told to whoever looks; a client may have called it by an address with a password in it."""
    shown = redacted_address(name)
    names = itertools.chain([shown], (f"{shown} ({number})" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)
