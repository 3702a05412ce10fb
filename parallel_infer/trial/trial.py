"""The course of a trial: load, look at every split of the cores, then at larger batches, and say what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from parallel_infer.trial.settings import Choice, Mix, larger_batches, mix_text, splits
from parallel_infer.trial.stand import Stand, TimeIsUp, Told
from parallel_infer.trial.verdict import Unusable, Verdict, compare, measurements

_LOADING = 0.55  # of the time that is left, after which no other setting is waited for


class Found(NamedTuple):
    """What a trial found."""

    chosen: Mix
    rate: float  # rows per second, all models together
    default_rate: float
    rates: dict[str, float]  # of every setting that was measured, by its text
    unusable: dict[str, str]  # settings that did not run, to the reason
    complete: bool  # else the time was over


def run_trial(told: Told, choices: Sequence[Choice], cores: int, seconds: float) -> Found:
    """Try settings for at most so many seconds. Raises Unusable where the default itself does not run."""
    with Stand(told, seconds) as stand:
        course = _Course(stand, told.default)
        try:
            course.run(choices, splits(choices, cores))
        except TimeIsUp:
            course.complete = False
        return course.found()


class _Course:
    """A trial that goes on, and what it has found so far."""

    def __init__(self, stand: Stand, default: Mix) -> None:
        self._stand = stand
        self._default = default
        self._verdicts: list[Verdict[Mix]] = []
        self.complete = True

    def run(self, choices: Sequence[Choice], others: Sequence[Mix]) -> None:
        """Raises TimeIsUp and Unusable."""
        if others:
            self._compare(self._default, others)
        else:
            self._load([self._default], self._stand.until)
        chosen = self._chosen
        if larger := larger_batches(chosen, choices, self._stand.targets(chosen)):
            self._compare(chosen, larger)

    def found(self) -> Found:
        """What was found, if only that there was no time for anything."""
        if not self._verdicts:
            return Found(self._default, 0.0, 0.0, {}, {}, complete=False)
        first, last = self._verdicts[0], self._verdicts[-1]
        unusable = {mix_text(mix): why for verdict in self._verdicts for mix, why in verdict.unusable.items()}
        rates = {mix_text(mix): round(v.total(mix), 1) for v in self._verdicts[::-1] for mix in v.rates}
        chosen = self._chosen
        return Found(chosen, last.total(chosen), first.total(self._default), rates, unusable, self.complete)

    @property
    def _chosen(self) -> Mix:
        return self._verdicts[-1].chosen if self._verdicts else self._default

    def _compare(self, base: Mix, others: Sequence[Mix]) -> None:
        """Measure in turns. What is not loaded early enough, or would not fit into the time, is left out."""
        stand, now = self._stand, time.monotonic()
        self._load([base, *others], now + (stand.until - now) * _LOADING)
        there = [mix for mix in others if stand.is_loaded(mix)]
        seconds, left = stand.seconds([base, *there]), stand.until - time.monotonic()
        while there and measurements(len(there)) * seconds > left:
            there.pop()  # the farthest from the default
            seconds = stand.seconds([base, *there])
        self.complete = self.complete and len(there) == len(others)
        if there:
            self._verdicts.append(compare(base, there, lambda mix: stand.measure(mix, seconds)))

    def _load(self, mixes: Sequence[Mix], until: float) -> None:
        """Raises TimeIsUp where the first of them is not loaded by then."""
        self._stand.load(mixes, until)
        if not self._stand.is_loaded(mixes[0]):
            raise TimeIsUp


__all__ = ["Found", "Unusable", "run_trial"]
