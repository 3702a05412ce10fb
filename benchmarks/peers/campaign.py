"""A comparison as a list of turns, one server each: when it runs, what came of it, what is left to do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.peers.journal import Journal
from benchmarks.peers.measuring import Measuring
from benchmarks.peers.pairs import (
    TRIAL_IN_FLIGHT,
    Conditions,
    Durations,
    Pair,
    Record,
    eight_bits_key,
    our_trial_key,
    trial_key,
    turn_key,
)
from benchmarks.peers.peer import PeerFailed
from benchmarks.peers.schedule import OURS, Group, groups
from benchmarks.peers.settings import Setting, our_settings
from parallel_infer.errors import ServerUnavailable

_START, _OUR_START = 4.0, 7.0  # seconds that starting and stopping a server takes, for the estimate
_OUR_FIRST = 15.0  # those of our trial at a first start, and of another start whose answers the peers must give
_SLOW = 60.0  # pictures per second, at which what is under way at the end of a point is waited for, for the estimate


@dataclass(frozen=True)
class Turn:
    """One server for a while. Its figures are kept under `key`; where there are none, its pairs have failed."""

    key: str
    pairs: tuple[Pair, ...]
    seconds: float  # about
    measure: Callable[[], Any]


class Campaign:
    """Runs turns, one server at a time, and keeps what comes of each in the journal."""

    def __init__(
        self, durations: Durations, conditions: Conditions, journal: Journal, say: Callable[[str], None]
    ) -> None:
        self._durations = durations
        self._conditions = conditions
        self._journal = journal
        self._say = say
        self._measuring = Measuring(durations, conditions)
        self._failures: dict[Pair, str] = {}

    def run(self, pairs: Sequence[Pair]) -> list[Record]:
        """Trials of every pair, then rounds over all pairs. What the journal has is not measured again."""
        turns = self.left(pairs)
        left = sum(turn.seconds for turn in turns)
        self._say(estimate(pairs, turns))
        begin = time.monotonic()
        for number, turn in enumerate(turns, 1):
            if not turn.pairs or any(pair not in self._failures for pair in turn.pairs):
                with self._failing(turn):
                    value = turn.measure()
                    self._journal.put(turn.key, value)
                    self._say(f"[{number}/{len(turns)}, {left / 60:.0f} min left] {turn.key}: {_rates(value)}")
            left -= turn.seconds
        self._say(f"done after {(time.monotonic() - begin) / 60:.1f} minutes")
        return self.records(pairs)

    def records(self, pairs: Sequence[Pair]) -> list[Record]:
        """What the journal has of each."""
        return [self._record(pair, pairs) for pair in pairs]

    def left(self, pairs: Sequence[Pair]) -> list[Turn]:
        """What the journal has not yet, in order."""
        return [turn for turn in self._turns(pairs) if turn.key not in self._journal]

    def _turns(self, pairs: Sequence[Pair]) -> Iterator[Turn]:
        """All of them, in order."""
        for concerned in _grouped(pairs, lambda pair: pair.model):
            yield from self._trials(concerned)
        for number in range(self._durations.rounds):
            for concerned in _grouped(pairs, lambda pair: pair.work):
                first = concerned[0]
                for group in groups(concerned, number):
                    for side in group.order:
                        yield self._turn(group, number, side)
                if first.model in self._conditions.eight_bits:
                    seconds = self._seconds(_OUR_START, [TRIAL_IN_FLIGHT] * len(self._conditions.ways))
                    measure = partial(self._ours_in_eight_bits, first, number)
                    yield Turn(eight_bits_key(number, first), (), seconds, measure)

    def _trials(self, pairs: tuple[Pair, ...]) -> Iterator[Turn]:
        """Of every setting of each peer on one model, with its first filter, and of ours where it is tuned too."""
        seconds = self._durations.trial - self._durations.point + self._seconds(_START, [TRIAL_IN_FLIGHT])
        for options in our_settings() if self._conditions.tunes_ours else ():
            measure = partial(self._measuring.our_trial, pairs[0], options)
            yield Turn(our_trial_key(pairs[0].model, options), pairs, seconds, measure)
        for same in _grouped(pairs, lambda pair: pair.tried):
            for setting in same[0].settings:
                measure = partial(self._measuring.trial, same[0], setting)
                yield Turn(trial_key(same[0], setting), same, seconds, measure)

    def _turn(self, group: Group[Pair], number: int, side: Pair | str) -> Turn:
        """A peer's, or ours for the peers beside it."""
        key, loads, overload = turn_key(group, number, side), self._conditions.in_flight, self._durations.overload
        again = _START + overload + 2 * self._durations.warm if overload else 0.0
        if isinstance(side, Pair):
            return Turn(key, (side,), self._seconds(_START, loads) + again, partial(self._peer, side))
        ways = len(self._conditions.ways)
        seconds = self._seconds(_OUR_START if number else _OUR_START + _OUR_FIRST, loads * ways) + again * ways
        return Turn(key, group.peers, seconds, partial(self._ours, group.peers[0], number))

    def _seconds(self, start: float, loads: Sequence[int]) -> float:
        each = self._durations.point + self._durations.warm
        return start + len(loads) * each + sum(loads) / _SLOW

    def _peer(self, pair: Pair) -> Any:
        setting, _ = self._best(pair)
        return self._measuring.peer(pair, setting)

    def _ours(self, pair: Pair, number: int) -> Any:
        return self._measuring.ours(pair, self._our_options(pair.model), number)

    def _ours_in_eight_bits(self, pair: Pair, number: int) -> Any:
        return self._measuring.ours_in_eight_bits(pair, self._our_options(pair.model), number)

    def _best(self, pair: Pair) -> tuple[Setting, list[dict[str, Any]]]:
        """The setting that was fastest when tried, and all trials. Raises PeerFailed where one is missing."""
        rates = {setting: self._journal.get(trial_key(pair, setting)) for setting in pair.settings}
        if missing := [setting for setting, figures in rates.items() if figures is None]:
            raise PeerFailed(f"{missing[0]}: not tried")
        trials = [{"setting": str(one), "per_second": figures["per_second"]} for one, figures in rates.items()]
        return max(rates, key=lambda setting: rates[setting]["per_second"]), trials

    def _our_options(self, model: str) -> tuple[str, ...]:
        """Options of our server: those given, and where it is tuned the best of a trial like the peers'."""
        given = self._conditions.our_options
        if not self._conditions.tunes_ours:
            return given
        rates = {tried: self._journal.get(our_trial_key(model, tried)) for tried in our_settings()}
        if not all(rates.values()):
            return given
        return (*given, *max(rates, key=lambda tried: rates[tried]["per_second"]))

    def _record(self, pair: Pair, pairs: Sequence[Pair]) -> Record:
        record = Record(pair, our_options=self._our_options(pair.model), failure=self._failures.get(pair, ""))
        with contextlib.suppress(PeerFailed):
            record.setting, record.trials = self._best(pair)
        concerned = tuple(each for each in pairs if each.work == pair.work)
        for number in range(self._durations.rounds):
            group = next(group for group in groups(concerned, number) if pair in group.peers)
            found = {"ours": self._journal.get(turn_key(group, number, OURS))}
            found["peer"] = self._journal.get(turn_key(group, number, pair))
            if found["ours"] and found["peer"]:
                record.rounds.append(found | {"eight bits": self._journal.get(eight_bits_key(number, pair))})
        return record

    @contextlib.contextmanager
    def _failing(self, turn: Turn) -> Iterator[None]:
        """A server that fails is reported; the other pairs go on."""
        try:
            yield
        except (PeerFailed, ServerUnavailable) as error:
            self._failures |= dict.fromkeys(turn.pairs, f"{turn.key}: {error}")
            self._say(f"{turn.key}: {error}")


def estimate(pairs: Sequence[Pair], turns: Sequence[Turn]) -> str:
    """How long it takes, for people."""
    minutes = sum(turn.seconds for turn in turns) / 60
    return f"{len(pairs)} comparisons, {len(turns)} servers to start, about {minutes:.0f} minutes"


def _grouped(pairs: Sequence[Pair], key: Callable[[Pair], str]) -> list[tuple[Pair, ...]]:
    """Those of the same key together, in order."""
    return [tuple(each for each in pairs if key(each) == name) for name in dict.fromkeys(map(key, pairs))]


def _rates(value: Any) -> str:
    """The figures of a turn for people."""
    if isinstance(value, list):
        return ", ".join(f"{point['per_second']:.1f}" for point in value if "per_second" in point) + "/s"
    if "per_second" in value:
        return _rates([value])
    return "; ".join(f"over {way} {_rates(points)}" for way, points in value.items())
