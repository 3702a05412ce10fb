"""Which of the measured settings is chosen. Pure.

Measurements are noise and signal. All settings are looked at once; the best of them and the default are then measured
again in turns, and another setting than the default is chosen only where it wins clearly in the middle of the rounds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

WORTH = 1.05  # times the default's rate that another setting must reach
_ROUNDS = 3
_FINALISTS = 2
Key = TypeVar("Key", bound=Hashable)
Rates = list[float]  # rows per second, by model


class Unusable(Exception):
    """A setting that does not run: its process died, its model did not load. The text says why."""


class Verdict(NamedTuple, Generic[Key]):
    """What came of it."""

    chosen: Key
    rates: dict[Key, Rates]  # the middle of the rounds, by model
    unusable: dict[Key, str]  # to the reason

    def total(self, key: Key) -> float:
        """Rows per second of all models together."""
        return sum(self.rates[key])


def compare(default: Key, others: Sequence[Key], measure: Callable[[Key], Rates]) -> Verdict[Key]:
    """Measure `default` and `others` in turns and choose. `measure` raises Unusable; for the default that is raised."""
    rounds: dict[Key, list[Rates]] = {}
    unusable: dict[Key, str] = {}
    contestants = [default, *others]
    for number in range(_ROUNDS):
        for key in contestants if number % 2 == 0 else contestants[::-1]:
            if key in unusable:
                continue
            try:
                rounds.setdefault(key, []).append(measure(key))
            except Unusable as error:
                if key == default:
                    raise
                unusable[key] = str(error)
        usable = [key for key in contestants[1:] if key not in unusable]
        best = sorted(usable, key=lambda key: gain(rounds[key], rounds[default]), reverse=True)
        contestants = [default, *best[:_FINALISTS]]
    gains = {key: gain(rounds[key], rounds[default]) for key in contestants[1:] if key not in unusable}
    winner = max(gains, key=lambda key: gains[key], default=default)
    chosen = winner if winner != default and gains[winner] >= WORTH else default
    return Verdict(chosen, {key: _middle(rates) for key, rates in rounds.items()}, unusable)


def measurements(others: int) -> int:
    """How many measurements `compare` makes at most."""
    return 1 + others + (_ROUNDS - 1) * (1 + min(others, _FINALISTS))


def gain(rates: Sequence[Rates], base: Sequence[Rates]) -> float:
    """Times the default's rate: over models the geometric mean, over rounds the median.

    The geometric mean, since each model counts as much as the others, however fast it is.
    """
    return statistics.median(
        math.exp(
            statistics.mean(math.log(max(mine, 1e-9) / max(theirs, 1e-9)) for mine, theirs in zip(m, b, strict=True))
        )
        for m, b in zip(rates, base, strict=False)
    )


def _middle(rounds: Sequence[Rates]) -> Rates:
    return [statistics.median(rates) for rates in zip(*rounds, strict=True)]
