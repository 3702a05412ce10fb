"""The search: one axis after the other from the default on, then the best against the default in turns. Pure.

Measurements are noise and signal. A single one only decides what is looked at next; what is suggested must beat the
default in every one of several rounds, in which both are measured in turns, and by more than a few percent.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from parallel_infer.tools.tuning.settings import Axis, Settings

WORTH = 1.03  # a suggestion is at least this much better than the default


@dataclass(frozen=True, slots=True)
class Outcome:
    """What settings achieved. `failure` says why they did not run at all."""

    per_second: float = 0.0
    p99_ms: float = 0.0
    in_flight: int = 0
    failure: str = ""


class Goal(Protocol):
    """What is better."""

    def score(self, outcome: Outcome) -> float:
        """Higher is better; what misses the goal is negative."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """As many pictures per second as can be."""

    def score(self, outcome: Outcome) -> float:
        return -1e12 if outcome.failure else outcome.per_second


@dataclass(frozen=True, slots=True)
class LatencyLimit:
    """As many pictures per second as can be with a p99 of at most `p99_ms`; where none keeps that, the lowest p99."""

    p99_ms: float

    def score(self, outcome: Outcome) -> float:
        if outcome.failure or not outcome.per_second:
            return -1e12
        return outcome.per_second if outcome.p99_ms <= self.p99_ms else -outcome.p99_ms


@dataclass(slots=True)
class Trial:
    """Settings and how they did: the first look, and the rounds of the finals where they got that far."""

    settings: Settings
    first: Outcome
    rounds: list[Outcome] = field(default_factory=list)

    def median(self) -> Outcome:
        """The middle of the final rounds; the first look where there were none."""
        if not self.rounds:
            return self.first
        failures = [outcome.failure for outcome in self.rounds if outcome.failure]
        return Outcome(
            statistics.median(outcome.per_second for outcome in self.rounds),
            statistics.median(outcome.p99_ms for outcome in self.rounds),
            self.rounds[0].in_flight,
            failures[0] if failures else "",
        )


def explore(base: Settings, axes: Sequence[Axis], measure: Callable[[Settings], Outcome], goal: Goal) -> list[Trial]:
    """Every settings looked at, the default first. Each axis starts from the best so far."""
    tried = {base: Trial(base, measure(base))}
    best = tried[base]
    for axis in axes:
        for settings in axis(best.settings):
            if settings not in tried:
                tried[settings] = Trial(settings, measure(settings))
        best = max(tried.values(), key=lambda trial: goal.score(trial.first))
    return list(tried.values())


def finalists(trials: Sequence[Trial], goal: Goal) -> list[Trial]:
    """The default and the two best others, better at first sight or not: one look at the default may flatter it."""
    base, *others = trials
    working = [trial for trial in others if not trial.first.failure]
    return [base, *sorted(working, key=lambda trial: goal.score(trial.first), reverse=True)[:2]]


def winner(finals: Sequence[Trial], goal: Goal) -> Trial:
    """The best of those that beat the default beyond noise; the default where none does."""
    base, *others = finals
    beating = [trial for trial in others if beats(trial, base, goal)]
    return max(beating, key=lambda trial: goal.score(trial.median()), default=base)


def beats(trial: Trial, base: Trial, goal: Goal) -> bool:
    """Whether a trial is better in every round, and by enough in the middle of them."""
    pairs = list(zip(trial.rounds, base.rounds, strict=True))
    if not pairs or not all(goal.score(mine) > goal.score(theirs) for mine, theirs in pairs):
        return False
    mine, theirs = goal.score(trial.median()), goal.score(base.median())
    return mine >= theirs * WORTH if theirs > 0 else mine >= theirs / WORTH
