"""Anything: the outputs of the model as they are."""

from __future__ import annotations

from collections.abc import Iterator

from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Recipe, Strength


def fits(facts: Facts, task: str) -> Fit | Misfit:
    return Fit(0, "outputs are handed out as they are")


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task == "tensor":
        yield Claim(Strength.TASK, "tensor", (facts.because,))


FAMILY = Family(name="tensor", readers={"tensor": None}, fits=fits, claims=claims, recipe=Recipe("stretch"))
