"""Classifiers: one row of class scores for a picture."""

from __future__ import annotations

from collections.abc import Iterator

from stages.families.evidence import NO_METADATA
from stages.families.facts import Facts
from stages.families.family import IMAGENET, Claim, Family, Fit, Misfit, Recipe, Strength

_ULTRALYTICS = Recipe("crop", filter="bilinear")
_TIMM = Recipe("crop", filter="bicubic")  # timm's default, and the one of EfficientNet-Lite
_USUAL = Recipe("crop", IMAGENET, crop_fraction=0.875, filter="bilinear")


def fits(facts: Facts, task: str) -> Fit | Misfit:
    scores = facts.class_scores
    if scores is None:
        return Misfit(f"found outputs {facts.shown}; expected one row of class scores per picture")
    name, nc = scores
    if facts.nc is not None and facts.nc != nc:
        return Misfit(f"found {name} [{nc}]; expected {facts.nc} class scores, one per name")
    # Classifiers whose metadata names the task are Ultralytics', others the usual ImageNet ones.
    recipe = _USUAL
    if facts.metadata.task == "classify":
        recipe = _ULTRALYTICS if facts.metadata.crop_fraction is None else _TIMM
    return Fit(nc, f"{name} [{nc}] is one score per class", recipe=recipe)


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task == "classify":
        yield Claim(Strength.TASK, "classify", (facts.because,))
    elif facts.task is None and facts.only_of_rank(2) is None and facts.class_scores is not None:
        warning = f"{NO_METADATA}: class scores; for an embedding or other numbers set task = tensor"
        yield Claim(Strength.SHAPE, "classify", (NO_METADATA,), () if facts.nc is not None else (warning,))


FAMILY = Family(name="classifier", readers={"classify": None}, fits=fits, claims=claims)
