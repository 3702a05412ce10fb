"""Classifiers: one row of class scores for a picture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stages.families.evidence import NO_METADATA, TOLERANCE
from stages.families.facts import Facts
from stages.families.family import IMAGENET, Claim, Family, Fit, Misfit, Recipe, Strength

_ULTRALYTICS = Recipe("crop", filter="bilinear")
_TIMM = Recipe("crop", filter="bicubic")  # timm's default, and the one of EfficientNet-Lite
_USUAL = Recipe("crop", IMAGENET, crop_fraction=0.875, filter="bilinear")

_NAMED_SCORES = re.compile(r"logit|prob|softmax|score|class", re.IGNORECASE)
_ONLY_SCORES = ("logits", "probs", "probabilities", "softmax")  # beside whatever other outputs
# Operators that end with any numbers; others that end with numbers of 0 to 1 alone do so on purpose.
_LINEAR = ("Gemm", "MatMul", "Add", "Conv", "GlobalAveragePool", "ReduceMean", "BatchNormalization", "QLinearMatMul")
_ENDS = ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid")
# How many numbers the landmarks of faces have: 68, 98, 106 and 468 points, two or three numbers each.
_POINTS = frozenset((136, 196, 212, 936, 956, 1404, 1434))
_FEW_POINTS = frozenset((10, 34, 42, 51, 63))  # 5 of a face, 17 of a body, 21 of a hand; classes as well
_NO_SCORES = re.compile(r"embed|feature|hidden|pool|vector", re.IGNORECASE)


class Scores(NamedTuple):
    """What the numbers of a row are, and why."""

    activation: str  # what makes probabilities of them: softmax, sigmoid, or none
    because: str
    warning: str = ""


def _row_of_scores(facts: Facts) -> tuple[str, int] | None:
    """The output with the class scores and its length: as many as there are names, or the only one, or by its name."""
    rows = facts.rows
    named = [name for name, size in rows.items() if facts.nc is not None and _fits_names(size, facts.nc)]
    if not named and not (facts.nc is not None and len(rows) > 1):
        named = list(rows)
    if len(named) > 1:
        named = [name for name in named if not _NO_SCORES.search(name)]
    if len(named) > 1:
        named = [name for name in named if _NAMED_SCORES.search(name)]
    return (named[0], rows[named[0]]) if len(named) == 1 else None


def _fits_names(size: int, names: int) -> bool:
    """One number is enough for two classes: it is the score of the second."""
    return size == names or (size == 1 and names == 2)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    found = _row_of_scores(facts)
    if found is None:
        return Misfit(f"found outputs {facts.shown}; expected one row of class scores per picture")
    name, nc = found
    if facts.nc is not None and not _fits_names(nc, facts.nc) and facts.task != "classify":
        return Misfit(f"found {name} [{nc}]; expected {facts.nc} class scores, one per name")
    wrong = None if facts.insisted else _no_scores(facts, name, nc)
    if wrong is not None:
        return Misfit(f"found {name} [{nc}] with {wrong}; expected class scores")
    scores = _scores(facts, name, nc)
    if isinstance(scores, Misfit):
        return scores
    # Classifiers whose metadata names the task are Ultralytics', others the usual ImageNet ones.
    known = facts.metadata.task == "classify"
    ultralytics = _ULTRALYTICS if facts.metadata.crop_fraction is None else _TIMM
    return Fit(
        facts.nc if facts.nc is not None and _fits_names(nc, facts.nc) else nc,
        f"{name} [{nc}] is one score per class: {scores.because}",
        {"output": name, "activation": scores.activation, "softmax": scores.activation == "softmax"},
        recipe=ultralytics if known else _USUAL,
        guessed=not known,
        unused=facts.besides(name),
        warnings=(scores.warning,) if scores.warning else (),
    )


def _no_scores(facts: Facts, name: str, nc: int) -> str | None:
    """What speaks against these numbers being probabilities or logits."""
    if nc > 1 and facts.arrays[name].dtype.kind in "iub":
        return "whole numbers"
    rows = [np.asarray(array, np.float64).ravel() for array in facts.trials(name)]
    percent = all(row.min() >= 0.0 and abs(row.sum() - 100.0) <= 100 * TOLERANCE for row in rows)
    if nc > 1 and percent:
        return "numbers that sum to 100"
    asked = facts.task == "classify" or facts.nc is not None or bool(_NAMED_SCORES.search(name))
    return None if asked else _points(facts.operators.get(name, ""), rows, nc)


def _points(operator: str, rows: list[npt.NDArray[np.float64]], nc: int) -> str | None:
    """What speaks for nameless numbers being points of a face, hand or body: how many there are, and none below 0."""
    if operator in _ENDS or all(abs(row.sum() - 1.0) <= TOLERANCE for row in rows):
        return None
    if nc not in _POINTS and not (nc in _FEW_POINTS and all(row.min() >= 0.0 and np.ptp(row) > 0.0 for row in rows)):
        return None
    return f"{nc} numbers, as many as {nc // 2} points have (set task = classify if they are scores)"


def _scores(facts: Facts, name: str, nc: int) -> Scores | Misfit:
    operator = facts.operators.get(name, "")
    trials = [np.asarray(array, np.float64).ravel() for array in facts.trials(name)]
    asked = facts.task == "classify" or facts.insisted or facts.nc is not None
    bounded = all(row.min() >= -TOLERANCE and row.max() <= 1.0 + TOLERANCE for row in trials)
    whole = nc > 1 and bounded and all(abs(row.sum() - 1.0) <= TOLERANCE for row in trials)
    if operator == "Softmax" or whole:
        return Scores("none", "probabilities, which sum to 1")
    if operator in ("Sigmoid", "HardSigmoid"):
        doubt = (
            "each class has a score of its own (a sigmoid): set multi_label = true where several may be true at once"
        )
        return Scores("none", "a sigmoid for each class", doubt if nc > 1 else "")
    if nc == 1:
        if bounded and asked:
            return Scores("none", "one number of 0 to 1")
        if not asked:
            return Misfit(f"found one number in {name}, and nothing that says it is a score")
        return Scores("sigmoid", "one logit")
    if not asked and all(row.min() < 0 and abs(np.linalg.norm(row) - 1.0) <= TOLERANCE for row in trials):
        return Misfit(f"found a vector of length 1 in {name}; expected class scores")
    varied = any(np.ptp(row) > 0.0 for row in trials)
    if bounded and varied and operator not in _LINEAR and all(row.min() >= 0.0 for row in trials):
        doubt = f"{name} has numbers of 0 to 1 that do not sum to 1: taken for a score of each class as they are"
        return Scores("none", "numbers of 0 to 1", f"{doubt}; set task = tensor where they are none")
    doubt = f"{name} is taken for logits, and gets a softmax: set task = tensor where it is no class scores"
    return Scores("softmax", "logits", "" if asked or operator == "LogSoftmax" else doubt)


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task == "classify":
        yield Claim(Strength.TASK, "classify", (facts.because,))
    elif facts.task is None:
        yield from _by_shape(facts)


def _by_shape(facts: Facts) -> Iterator[Claim]:
    found = _row_of_scores(facts)
    if found is None:
        return
    name, size = found
    if "pred_boxes" in facts.outputs:
        return
    named = facts.nc is not None or len(facts.metadata.character) == size
    alone = set(facts.rows) == set(facts.outputs) and not _has_other_numbers(facts, name)
    alone = alone or (name.lower() in _ONLY_SCORES and len(facts.rows) == 1)
    if _NO_SCORES.search(name) or not (alone or (named and _NAMED_SCORES.search(name))):
        return
    warning = f"{NO_METADATA}: class scores; for an embedding or other numbers set task = embedding or tensor"
    yield Claim(Strength.SHAPE, "classify", (NO_METADATA,), () if named else (warning,))


def _has_other_numbers(facts: Facts, name: str) -> bool:
    """Whether rows besides the scores have numbers of unknown meaning, such as a box or points beside its score."""
    return any(
        facts.arrays[other].dtype.kind == "f" and not _NO_SCORES.search(other) and not _NAMED_SCORES.search(other)
        for other in facts.rows
        if other != name
    )


FAMILY = Family(name="classifier", readers={"classify": None}, fits=fits, claims=claims, recipe=_USUAL)
