"""The course of a trial: load, look at every split of the cores, then at larger batches, and say what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from parallel_infer.model_spec import ModelSpec
from parallel_infer.trial.settings import Choice, Mix, fitting, larger_batches, mix_text, splits
from parallel_infer.trial.stand import Stand, TimeIsUp, Told
from parallel_infer.trial.verdict import Unusable, Verdict, compare, gain, measurements

_NO_ROOM = "its sessions would not fit into memory beside the others"
_COPIES = 3  # times its file that a session takes,
_MEBI = 1 << 20
_PROCESS = 100 * _MEBI  # and this
_RESERVE = 1.1  # times the seconds of all rounds that are to be left when they begin
_LOADING = 0.55  # of the time that is left, after which no other setting is waited for


class Found(NamedTuple):
    """What a trial found."""

    chosen: Mix
    rate: float  # rows per second, all models together
    default_rate: float
    gain: float  # times the default's rate, in the geometric mean of the models
    rates: dict[str, float]  # of every setting that was measured, by its text
    unusable: dict[str, str]  # settings that did not run, to the reason
    complete: bool  # else the time was over


def run_trial(told: Told, choices: Sequence[Choice], cores: int, room: int, seconds: float) -> Found:
    """Try settings for at most so many seconds in `room` bytes of memory.

    Raises Unusable where the default itself does not run.
    """
    sizes = [_session_size(make(setting).spec) for make, setting in zip(told.plans, told.default, strict=True)]
    with Stand(told, seconds) as stand:
        course = _Course(stand, told.default, lambda others: fitting(told.default, others, sizes, room))
        try:
            course.run(choices, splits(choices, cores))
        except TimeIsUp:
            course.complete = False
        return course.found()


class _Course:
    """A trial that goes on, and what it has found so far."""

    def __init__(self, stand: Stand, default: Mix, fitting: Callable[[Sequence[Mix]], list[Mix]]) -> None:
        """`fitting`: those that fit into memory beside the default."""
        self._stand = stand
        self._fitting = fitting
        self._left_out: dict[str, str] = {}
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
            self._stand.keep(chosen)
            self._compare(chosen, larger)

    def found(self) -> Found:
        """What was found, if only that there was no time for anything."""
        if not self._verdicts:
            return Found(self._default, 0.0, 0.0, 1.0, {}, self._left_out, self.complete)
        first, last = self._verdicts[0], self._verdicts[-1]
        unusable = self._left_out | {mix_text(m): why for v in self._verdicts for m, why in v.unusable.items()}
        rates = {mix_text(mix): round(v.total(mix), 1) for v in self._verdicts[::-1] for mix in v.rates}
        chosen = self._chosen
        rate, default_rate = last.total(chosen), first.total(self._default)
        gained = gain([last.rates[chosen]], [first.rates[self._default]])
        return Found(chosen, rate, default_rate, gained, rates, unusable, self.complete)

    @property
    def _chosen(self) -> Mix:
        return self._verdicts[-1].chosen if self._verdicts else self._default

    def _compare(self, base: Mix, others: Sequence[Mix]) -> None:
        """Measure in turns. What is not loaded early enough, or would not fit into the time, is left out."""
        stand, now = self._stand, time.monotonic()
        wanted, others = others, self._fitting(others)
        self._left_out |= {mix_text(mix): _NO_ROOM for mix in wanted if mix not in others}
        self._load([base, *others], now + (stand.until - now) * _LOADING)
        there = [mix for mix in others if stand.is_loaded(mix)]
        seconds, left = stand.seconds([base, *there]), stand.until - time.monotonic()
        while there and measurements(len(there)) * seconds * _RESERVE > left:
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


def _session_size(spec: ModelSpec) -> int:
    """Bytes that a session takes, roughly."""
    file = Path(spec.path)
    try:
        weights = sum(path.stat().st_size for path in (file, *(file.parent / name for name in spec.data_files)))
    except OSError:
        weights = 0
    return _COPIES * weights + _PROCESS


__all__ = ["Found", "Unusable", "run_trial"]
