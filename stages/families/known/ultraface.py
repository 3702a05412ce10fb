"""UltraFace (Ultra-Light-Fast-Generic-Face-Detector): boxes as fractions, scores of "nothing" and of a face."""

from __future__ import annotations

from collections.abc import Iterator

from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.known import boxes_scores

# Pixels minus 127, divided by 128, as its own detect_imgs_onnx.py does.
_RECIPE = Recipe("stretch", ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)))


def fits(facts: Facts, task: str) -> Fit | Misfit:
    fit = boxes_scores.fit_with(facts, 1, 'a box of each anchor, and scores of "nothing" and of a face')
    if isinstance(fit, Misfit):
        return fit
    if fit.nc != 1 or not fit.parameters["normalised"]:
        return Misfit(f"found outputs {facts.shown}; expected two columns of scores, and boxes as fractions")
    return Fit(1, fit.because, fit.parameters, ("face",))


def claims(facts: Facts) -> Iterator[Claim]:
    named = {"boxes", "scores"} == set(facts.outputs) and facts.task in (None, "detect") and facts.nc in (None, 1)
    if named and isinstance(fits(facts, "detect"), Fit):
        doubt = 'scores are taken for "nothing" and a face: set family = boxes-scores if both are classes'
        yield Claim(Strength.NAMES, "detect", (), (doubt,))


FAMILY = Family(
    name="ultraface",
    readers={"detect": boxes_scores.BoxesAndScores},
    fits=fits,
    claims=claims,
    recipe=_RECIPE,
    needs_nms=True,
)
