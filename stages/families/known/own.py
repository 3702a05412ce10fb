"""Models of tasks that were added to the pipeline: no family reads their outputs, the task does."""

from __future__ import annotations

from collections.abc import Iterator

from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Strength
from stages.pipeline import TASKS

SHIPPED = ("classify", "detect", "segment", "keypoints", "obb", "semantic", "map", "embedding", "tensor", "text")

ADDED = tuple(task for task in TASKS if task not in SHIPPED)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    return Fit(0, "the task reads the outputs itself")


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task in ADDED:
        yield Claim(Strength.NAMES, str(facts.task), (facts.because,))


FAMILY = Family(name="own", readers=dict.fromkeys(ADDED), fits=fits, claims=claims)
