"""What is done with one server while it is alive, ours or a peer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.machine import free_port
from benchmarks.peers.agreement import differences
from benchmarks.peers.filters import preprocess_of
from benchmarks.peers.pairs import TRIAL_IN_FLIGHT, Conditions, Durations, OurPoints, Pair, Point
from benchmarks.peers.peer import PeerFailed, Running, Served, ours, started
from benchmarks.peers.settings import Setting
from benchmarks.peers.work import Setup

_CLIENT_TIMEOUT = 30.0  # seconds, while capacity is measured: nobody is to give up
_OVERLOAD = 2.0  # times the capacity
_FILLED = 0.5  # of the deadline: so long is the queue at capacity that a server may keep under overload

Options = tuple[str, ...]


class Measuring:
    """Starts a server, loads it, stops it. Raises PeerFailed and ServerUnavailable."""

    def __init__(self, durations: Durations, conditions: Conditions) -> None:
        self._durations = durations
        self._conditions = conditions
        self._expected: dict[tuple[str, Options], list[dict[str, Any]]] = {}  # our answers by model and options

    def trial(self, pair: Pair, setting: Setting) -> Point:
        with self._started(pair, setting) as running:
            return running.load([self._closed(TRIAL_IN_FLIGHT, self._durations.trial)])[0]

    def our_trial(self, pair: Pair, options: Options) -> Point:
        way = self._conditions.ways[0]
        with ours(pair.served, [*self._conditions.our_options, *options], _CLIENT_TIMEOUT, (way,)) as running:
            return running[way].load([self._closed(TRIAL_IN_FLIGHT, self._durations.trial)])[0]

    def peer(self, pair: Pair, setting: Setting) -> list[Point]:
        """Capacity at every number in flight, then, on a fresh server with the deadline set, the overload."""
        with self._started(pair, setting) as running:
            points = self._capacity(running)
        if not self._durations.overload:
            return points
        with self._started(pair, setting, self._conditions.deadline, self._queue(points)) as running:
            return [*points, self._overload(running, points)]

    def ours(self, pair: Pair, options: Options, number: int) -> OurPoints:
        """The same of our server, over each way; the ways take turns at being first."""
        turned = self._conditions.ways[::-1] if number % 2 else self._conditions.ways
        with ours(pair.served, [*options, "--queue-size", "1024"], _CLIENT_TIMEOUT, turned) as running:
            points = {way: self._capacity(running[way]) for way in turned}
        for way in turned if self._durations.overload else ():
            queue = str(self._queue(points[way]))
            with ours(pair.served, [*options, "--queue-size", queue], self._conditions.deadline, (way,)) as running:
                points[way].append(self._overload(running[way], points[way]))
        return points

    def ours_in_eight_bits(self, pair: Pair, options: Options, number: int) -> OurPoints:
        turned = self._conditions.ways[::-1] if number % 2 else self._conditions.ways
        given = [*options, "--queue-size", "1024"]
        point = self._closed(TRIAL_IN_FLIGHT, self._durations.point)
        served = Served(self._conditions.eight_bits[pair.model], filter=pair.filter.chosen)
        with ours(served, given, _CLIENT_TIMEOUT, turned) as running:
            return {way: running[way].load([point]) for way in turned}

    def _capacity(self, running: Running) -> list[Point]:
        points = running.load([self._closed(count, self._durations.point) for count in self._conditions.in_flight])
        more = {"seconds_to_ready": running.seconds_to_ready, "own_trial": running.own_trial}
        return [point | more for point in points]

    def _overload(self, running: Running, points: Sequence[Point]) -> Point:
        durations, deadline, capacity = self._durations, self._conditions.deadline, _capacity(points)
        order = {"rate": _OVERLOAD * max(capacity, 1.0), "seconds": durations.overload, "deadline": deadline}
        _, overload = running.load([self._closed(TRIAL_IN_FLIGHT, durations.warm), order])
        return overload | {"capacity": capacity, "queue": self._queue(points)}

    def _queue(self, points: Sequence[Point]) -> int:
        return max(8, round(_capacity(points) * self._conditions.deadline * _FILLED))

    def _closed(self, in_flight: int, seconds: float) -> Point:
        return {"in_flight": in_flight, "warm": self._durations.warm, "seconds": seconds}

    @contextlib.contextmanager
    def _started(
        self, pair: Pair, setting: Setting, timeout: float = _CLIENT_TIMEOUT, queue: int = 1024
    ) -> Iterator[Running]:
        """The peer, which has answered about the photographs what ours does. Raises PeerFailed."""
        expected = () if pair.compared is None else self._answers(pair, pair.compared)
        with started(pair.peer, self._setup(pair, setting, timeout, queue)) as running:
            for number, (one, other) in enumerate(zip(expected, running.first_answers, strict=False)):
                if other is None or (found := differences(one, other)):
                    text = "no answer" if other is None else found[0]
                    raise PeerFailed(f"other answers than ours: photograph {number}: {text}")
            yield running

    def _answers(self, pair: Pair, options: Options) -> list[dict[str, Any]]:
        """What our server with these options says about the photographs, over every way the same."""
        key = pair.work, options
        if key not in self._expected:
            ways, given = self._conditions.ways, (*self._conditions.our_options, *options)
            with ours(pair.served, given, _CLIENT_TIMEOUT, ways) as running:
                first, *others = [running[way].photographs() for way in ways]
            known = [answer for answer in first if answer is not None]
            if len(known) < len(first):
                raise PeerFailed("our server did not answer every photograph")
            for way, answers in zip(ways[1:], others, strict=True):
                if any(other is None or differences(one, other) for one, other in zip(known, answers, strict=True)):
                    raise PeerFailed(f"our server answers otherwise over {way} than over {ways[0]}")
            self._expected[key] = known
        return self._expected[key]

    def _setup(self, pair: Pair, setting: Setting, timeout: float, queue: int) -> Setup:
        return Setup(
            model=pair.path,
            port=free_port(),
            timeout_ms=round(timeout * 1000),
            queue=queue,
            provider=pair.provider.name,
            precision=pair.provider.precision,
            spins=pair.provider.spins,
            decoder=self._conditions.decoder,
            preprocess=preprocess_of(pair.path, pair.filter.chosen),
            second=pair.second,
            second_preprocess=preprocess_of(pair.second, pair.filter.chosen) if pair.second else {},
            **setting._asdict(),
        )


def _capacity(points: Sequence[Point]) -> float:
    return max(float(point["per_second"]) for point in points)
