"""The order of a comparison: which server runs when, for how long, and what is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.machine import free_port
from benchmarks.peers.agreement import differences
from benchmarks.peers.peer import Peer, PeerFailed, Running, ours, started
from benchmarks.peers.settings import Setting, our_settings, settings
from benchmarks.peers.work import Setup
from parallel_infer.errors import ServerUnavailable

_TRIAL_IN_FLIGHT = 32
_CLIENT_TIMEOUT = 30.0  # seconds, while capacity is measured: nobody is to give up
_OVERLOAD = 2.0  # times the capacity
_FILLED = 0.5  # of the deadline: so long is the queue at capacity that a server may keep under overload

Point = dict[str, Any]


class Provider(NamedTuple):
    """What runs the model in a peer."""

    name: str  # "cpu" or "openvino"
    precision: str
    spins: bool
    label: str  # for tables

    def __str__(self) -> str:
        return f"{self.name} {self.precision}{', spinning' if self.spins else ''}"


@dataclass(frozen=True)
class Durations:
    """Seconds of each part, and how often all is repeated."""

    trial: float = 2.0
    warm: float = 0.5
    point: float = 2.5
    overload: float = 3.0  # 0: none
    rounds: int = 3


@dataclass(frozen=True)
class Conditions:
    """What is the same for every pair."""

    in_flight: tuple[int, ...]
    our_options: tuple[str, ...]
    tunes_ours: bool
    decoder: str  # of the peers
    deadline: float  # seconds, under overload
    over: str = "wire"  # how ours is asked: over our own wire, or over http with the same client as the peers


@dataclass(frozen=True)
class Pair:
    """A peer with a provider, to be compared on a model."""

    model: str
    path: str
    peer: Peer
    provider: Provider
    is_comparable: bool = True  # whether both must find the same in the photographs

    @property
    def label(self) -> str:
        return f"{self.model}: {self.peer.title} ({self.provider})"


@dataclass
class Record:
    """What came of a pair: rounds[i] is {"ours": points, "peer": points}."""

    pair: Pair
    setting: Setting | None = None
    our_options: tuple[str, ...] = ()
    trials: list[dict[str, Any]] = field(default_factory=list)
    disagreements: list[str] = field(default_factory=list)
    rounds: list[dict[str, list[Point]]] = field(default_factory=list)
    failure: str = ""


class Campaign:
    """Runs pairs; one server is alive at any time."""

    def __init__(self, durations: Durations, conditions: Conditions, say: Callable[[str], None]) -> None:
        self._durations = durations
        self._conditions = conditions
        self._say = say
        self._tuned: dict[str, tuple[str, ...]] = {}  # options of our server by model

    def run(self, pairs: Sequence[Pair]) -> list[Record]:
        """Trials of every pair, then rounds over all pairs, in which ours comes first and last by turns."""
        records = [Record(pair) for pair in pairs]
        for record in records:
            with _failing(record, self._say):
                self._try(record)
        for number in range(self._durations.rounds):
            for record in records:
                if not record.failure:
                    with _failing(record, self._say):
                        self._round(record, number)
        return records

    def _try(self, record: Record) -> None:
        """Find the best setting by a short load, and see that the peer answers as ours does."""
        pair = record.pair
        record.our_options = self._our_best(pair)
        with ours(pair.path, record.our_options, _CLIENT_TIMEOUT, self._conditions.over) as server:
            expected = server.photographs()
        if None in expected:
            raise PeerFailed("our server did not answer every photograph")
        best = -1.0
        point = self._closed(_TRIAL_IN_FLIGHT, self._durations.trial)
        for setting in settings(pair.peer.name):
            with started(pair.peer, self._setup(pair, setting)) as running:
                given = running.photographs()
                (figures,) = running.load([point])
            for number, (one, other) in enumerate(zip(expected, given, strict=True) if pair.is_comparable else ()):
                found = ["no answer"] if one is None or other is None else differences(one, other)
                record.disagreements += [f"photograph {number}: {text}" for text in found]
            record.trials.append({"setting": str(setting), "per_second": figures["per_second"]})
            self._say(f"{pair.label}, {setting}: {figures['per_second']:.1f}/s")
            if figures["per_second"] > best:
                best, record.setting = figures["per_second"], setting
        if record.disagreements:
            raise PeerFailed(f"other answers than ours: {record.disagreements[0]}")

    def _our_best(self, pair: Pair) -> tuple[str, ...]:
        """Options of our server: those given, and where it is tuned the best of a trial like the peers'."""
        given = self._conditions.our_options
        if not self._conditions.tunes_ours:
            return given
        if pair.model not in self._tuned:
            rates = {}
            for tried in our_settings():
                with ours(pair.path, [*given, *tried], _CLIENT_TIMEOUT, self._conditions.over) as server:
                    (figures,) = server.load([self._closed(_TRIAL_IN_FLIGHT, self._durations.trial)])
                rates[tried] = figures["per_second"]
                self._say(f"{pair.model}: ours, {' '.join(tried) or 'as it starts'}: {rates[tried]:.1f}/s")
            self._tuned[pair.model] = max(rates, key=lambda tried: rates[tried])
        return (*given, *self._tuned[pair.model])

    def _round(self, record: Record, number: int) -> None:
        turns: list[str] = ["ours", "peer"] if number % 2 == 0 else ["peer", "ours"]
        figures: dict[str, list[Point]] = {}
        for side in turns:
            figures[side] = self._measured(record, side)
            rates = ", ".join(f"{point['per_second']:.1f}" for point in figures[side] if "per_second" in point)
            self._say(f"{record.pair.label}, round {number + 1}, {side}: {rates}/s")
        record.rounds.append(figures)

    def _measured(self, record: Record, side: str) -> list[Point]:
        """Capacity at every number in flight, then, on a fresh server with the deadline set, the overload."""
        durations = self._durations
        with self._server(record, side, _CLIENT_TIMEOUT, 1024) as running:
            points = running.load([self._closed(count, durations.point) for count in self._conditions.in_flight])
        for point in points:
            point["seconds_to_ready"] = running.seconds_to_ready
        if not durations.overload:
            return points
        capacity = max(point["per_second"] for point in points)
        deadline = self._conditions.deadline
        queue = max(8, round(capacity * deadline * _FILLED))
        order = {"rate": _OVERLOAD * max(capacity, 1.0), "seconds": durations.overload, "deadline": deadline}
        with self._server(record, side, deadline, queue) as running:
            _, overload = running.load([self._closed(_TRIAL_IN_FLIGHT, durations.warm), order])
        return [*points, overload | {"capacity": capacity, "queue": queue}]

    def _closed(self, in_flight: int, seconds: float) -> Point:
        return {"in_flight": in_flight, "warm": self._durations.warm, "seconds": seconds}

    def _server(
        self, record: Record, side: str, timeout: float, queue: int
    ) -> contextlib.AbstractContextManager[Running]:
        pair = record.pair
        if side == "ours":
            return ours(pair.path, [*record.our_options, "--queue-size", str(queue)], timeout, self._conditions.over)
        assert record.setting is not None  # the trial found one
        return started(pair.peer, self._setup(pair, record.setting, timeout, queue))

    def _setup(self, pair: Pair, setting: Setting, timeout: float = _CLIENT_TIMEOUT, queue: int = 1024) -> Setup:
        return Setup(
            model=pair.path,
            port=free_port(),
            timeout_ms=round(timeout * 1000),
            queue=queue,
            provider=pair.provider.name,
            precision=pair.provider.precision,
            spins=pair.provider.spins,
            decoder=self._conditions.decoder,
            **setting._asdict(),
        )

    def seconds(self, pairs: Sequence[Pair], start: float) -> float:
        """About how long it takes, if a server takes `start` seconds to start and stop."""
        durations = self._durations
        trial = start + durations.trial + durations.warm
        side = start + len(self._conditions.in_flight) * (durations.point + durations.warm)
        side += (start + durations.overload + 2 * durations.warm) if durations.overload else 0
        tried = sum(len(settings(pair.peer.name)) for pair in pairs)
        return tried * trial + len(pairs) * (start + 2 * durations.rounds * side)


@contextlib.contextmanager
def _failing(record: Record, say: Callable[[str], None]) -> Iterator[None]:
    """A server that fails is reported; the other pairs go on."""
    try:
        yield
    except (PeerFailed, ServerUnavailable) as error:
        record.failure = str(error)
        say(f"{record.pair.label}: {error}")
