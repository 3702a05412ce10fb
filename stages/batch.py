"""Auto-batching: how many decoded rows go into the next batch, and whether waiting for more pays. Pure, no clock.

Work-conserving: an idle instance with a decoded row starts at once unless more rows of this model are known to come
soon and a larger batch is worth the wait. Ready rows are split over idle instances before they are stacked. What a
batch of each size costs is learned from the runs themselves; where batching gains nothing, batches stay small.

An idle instance is free only while a core is. Where the stages use all cores, starting a small batch takes cores from
decoding, and the larger batch, which costs less per row, loses nothing by coming later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from parallel_infer.dispatcher.estimate import learned
from parallel_infer.dispatcher.policy import Situation, Start, Wait

_RUN_OVERHEAD = 0.0006  # seconds of a core that a batch costs besides its run: leases, reports, hand-overs, wake-ups
_STRANGE = 4.0  # times what other sizes make one expect that the first run of a size may count
_FULL = 0.75  # part of the cores that stages used lately from which they count as full: the rest goes to messages
_BACKLOG = 2  # times the target that is on its way, from which more will be decoded than small batches could take
_TRIAL = 64  # runs of none larger than is worth having after which a larger batch is tried
_EARLY = 4  # runs of a size from which what it costs is known well enough to compare it
_SOON = 8  # runs after which a size that is not known so well is tried, where there is a backlog
_WORTH = 1.08  # a batch size is good enough when its cost per row is within this factor of the best
_WORTH_WAITING = 1.02  # the same where the cores are full and many rows are on their way: there all that counts is cost


@dataclass(slots=True)
class BatchTimes:
    """Seconds of a run by batch size, learned; sizes never run are interpolated linearly."""

    seconds: dict[int, float] = field(default_factory=dict)
    runs: dict[int, int] = field(default_factory=dict)

    def observe(self, size: int, seconds: float) -> None:
        """Take a measured run into account."""
        known = self.seconds.get(size, 0.0)
        if not known:  # the first run of a size may be the one that builds an engine: what others cost bounds it
            expected = self.estimate(size)
            known = min(seconds, _STRANGE * expected) if expected else seconds
        self.runs[size] = runs = self.runs.get(size, 0) + 1
        # What disturbs a run makes it longer: of the first few the shortest is nearest to the truth.
        self.seconds[size] = min(known, seconds) if runs <= _EARLY else learned(known, seconds)

    def estimate(self, size: int) -> float:
        """Expected seconds of a batch of `size`; 0 while nothing is known."""
        known = self.seconds
        if size in known or not known:
            return known.get(size, 0.0)
        below = max((s for s in known if s < size), default=None)
        above = min((s for s in known if s > size), default=None)
        if below is None and above is not None:
            return known[above] * max(size / above, 0.5)  # a smaller batch is rarely under half its neighbour
        if above is None and below is not None:
            return known[below] * size / below
        if below is None or above is None:
            return 0.0
        share = (size - below) / (above - below)
        return known[below] + share * (known[above] - known[below])


class AutoBatch:
    """The policy of one model. `decide` is a pure function of the situation and of the times observed."""

    def __init__(self, *, max_batch: int, preferred: int, fixed: int, max_delay: float) -> None:
        self.max_batch = fixed or max_batch
        self.preferred = min(preferred, self.max_batch)
        self.fixed = fixed
        self.max_delay = max_delay
        self.times = BatchTimes()
        self.costs = BatchTimes()  # processor time
        self._sizes = power_sizes(self.max_batch)
        self.target = fixed or self.preferred or self.max_batch
        self.deep = self.target  # with a backlog
        self._runs = 0  # since a batch was larger than the target
        self._trials = 0

    def learn(self, times: Mapping[int, float], costs: Mapping[int, float]) -> None:
        """Take what was measured before serving, by batch size: seconds, and seconds of processor time."""
        for size, seconds in times.items():
            self.observe(size, seconds, costs.get(size, 0.0))

    def observe(self, size: int, seconds: float, cost: float) -> None:
        """Take a run into account and choose the batch size worth having anew.

        `cost` is its processor time, 0.0 where another device computed it. It tells what a size is worth better than
        the time that passed, in which the run may have waited for a core.
        """
        self.times.observe(size, seconds)
        if cost:
            self.costs.observe(size, cost)
        self._runs += 1
        if size > self.deep:
            self._runs = 0
            self._trials += 1
        if not self.fixed and not self.preferred:
            self.target, self.deep = self._worthwhile()

    def expected(self, size: int) -> float:
        """Expected seconds of a batch of `size`; 0 while nothing is known."""
        return self.times.estimate(size)

    def _worthwhile(self) -> tuple[int, int]:
        known = self.costs if len(self.costs.seconds) > 1 else self.times
        if len(known.seconds) < 2:
            return self.max_batch, self.max_batch
        costs = {size: (known.estimate(size) + _RUN_OVERHEAD) / size for size in self._sizes}
        least = min(costs.values())
        target, deep = (
            next(s for s, cost in costs.items() if cost <= least * worth) for worth in (_WORTH, _WORTH_WAITING)
        )
        return target, deep

    def decide(self, now: Situation) -> Start | Wait:
        """What to do when `ready` is at least one and an instance has room."""
        full = self._cores_full(now)
        goal = self._goal(now) if full else self.target
        if now.idle:
            # A fixed batch costs the same however few of its rows are used: it is not split.
            share = now.ready if self.fixed or full else math.ceil(now.ready / now.idle)
            size = min(share, goal)
            if size >= goal:
                return Start(size)
            if full:
                return self._wait_for_core(now)
            if not self._waiting_pays(now):
                return Start(size)
            return Wait(max(0.0, min(self.max_delay - now.waited, now.slack)))
        if now.spare and now.ready >= goal:
            return Start(goal)
        return Wait(math.inf)

    def _cores_full(self, now: Situation) -> bool:
        """Whether a batch that starts now takes cores from what else is to be done for this model."""
        if not now.upstream or now.load < _FULL or not self.max_delay or len(self.times.seconds) < 2:
            return False
        return now.free_cores <= 0 or now.upstream >= _BACKLOG * self.target

    def _wait_for_core(self, now: Situation) -> Start | Wait:
        """Wait for more rows and a free core, for as long as a batch of what there is would take at most."""
        run = min(self.times.estimate(now.ready + 1), 2 * self.times.estimate(now.ready))
        limit = max(self.max_delay, run)
        if now.waited >= limit or now.slack <= run + limit:
            return Start(now.ready)
        return Wait(limit - now.waited)

    def _goal(self, now: Situation) -> int:
        """The size to fill: with a backlog the one that costs least, and now and then another one.

        What that costs may be known wrongly or not at all: a measurement before serving may have been disturbed, and
        what never runs is never learned.
        """
        if self.fixed or self.preferred:
            return self.target
        there = max(now.ready, now.upstream // _BACKLOG)
        come = [s for s in self._sizes if self.target < s <= there and self.times.estimate(s) < now.slack]
        unsure = [size for size in come if self.times.runs.get(size, 0) < _EARLY]
        if unsure and self._runs >= _SOON:
            return unsure[0]
        larger = [size for size in self._sizes if size > self.deep]
        if larger and self._runs >= _TRIAL and (trial := larger[self._trials % len(larger)]) in come:
            return trial
        return max((size for size in come if size <= self.deep), default=self.target)

    def _waiting_pays(self, now: Situation) -> bool:
        if now.idle > 1 or not now.upstream or now.waited >= self.max_delay:
            return False
        run = self.times.estimate(now.ready)
        if now.slack <= run + self.max_delay:
            return False
        # One more row in this batch saves what a batch of its own would cost beyond the row's share.
        saved = run + self.times.estimate(1) - self.times.estimate(now.ready + 1)
        return saved > now.next_row or not self.times.seconds


def power_sizes(largest: int) -> list[int]:
    """Batch sizes worth considering, in rising order: powers of two and the largest."""
    return sorted({1 << power for power in range(largest.bit_length()) if 1 << power <= largest} | {largest})
