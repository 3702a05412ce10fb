"""Semantic segmentation: logits of each class for each place, or the classes themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from stages.families.evidence import NO_METADATA
from stages.families.facts import Facts
from stages.families.family import IMAGENET, Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.known.yolov8 import ULTRALYTICS

_COARSEST = 8  # row pixels of a place: the heads of segmentation are no coarser
_MOST_CLASSES = 256
_NAMES = ("logits", "out", "output", "segmentation", "sem_seg")  # of several outputs the one to read
_TELLING = ("logits", "out", "segmentation", "sem_seg")  # names that by themselves say that it is one
_OTHER_MAPS = re.compile(r"embed|feature|hidden|heat|keypoint|pool|mask|proto", re.IGNORECASE)
_HUGGING_FACE = "optimum-cli export onnx --model MODEL --task semantic-segmentation FOLDER  (dynamic by default)"
_ULTRALYTICS = Recipe("letterbox")
_USUAL = Recipe("stretch", IMAGENET, filter="bilinear")


def spans_row(facts: Facts, height: int, width: int) -> bool:
    """Whether a grid of that size covers the row, in square cells that are not too coarse."""
    tall, wide = facts.size
    return height * wide == width * tall and tall <= height * _COARSEST and height > 1


def _output(facts: Facts) -> str | None:
    dense = [name for name, shape in facts.outputs.items() if _classes(facts, name) is not None and len(shape) >= 2]
    if len(dense) > 1:
        dense = [name for name in _NAMES if name in dense][:1]
    return dense[0] if len(dense) == 1 else None


def _classes(facts: Facts, name: str) -> tuple[int, bool] | None:
    """How many classes the output has logits of (0: it holds classes), and whether they stand last."""
    shape, whole = facts.outputs[name], facts.arrays[name].dtype.kind in "iub"
    if len(shape) == 2 and spans_row(facts, *shape):
        return 0 if whole else 1, False
    if len(shape) != 3:
        return None
    if spans_row(facts, *shape[1:]):
        return (0 if whole else shape[0], False) if not whole or shape[0] == 1 else None
    return (shape[2], True) if spans_row(facts, *shape[:2]) and not whole else None


def fits(facts: Facts, task: str) -> Fit | Misfit:
    name = _output(facts)
    found = _classes(facts, name) if name is not None else None
    if name is None or found is None:
        return Misfit(f"found outputs {facts.shown}; expected [classes, h, w] or [h, w], a part of the row's size")
    count, last = found
    if count > 1 and facts.nc not in (None, count):
        return Misfit(f"found logits of {count} classes; expected {facts.nc}, one for each name")
    parameters: dict[str, Any] = {"output": name, "channels_last": last}
    what = f"logits of {count} classes for each place" if count > 1 else "a class for each place"
    if count == 1:
        parameters["threshold"] = 0.5 if float(np.min(facts.arrays[name])) >= 0.0 else 0.0
        what = f"one number for each place: class 1 above {parameters['threshold']}, else class 0"
    ultralytics = facts.metadata.task == "semantic"
    if ultralytics or name == "logits":
        parameters["export"] = ULTRALYTICS if ultralytics else _HUGGING_FACE
    return Fit(
        count if count > 1 else facts.nc or 0,
        f"{name} {list(facts.outputs[name])} is {what}",
        parameters,
        recipe=_ULTRALYTICS if ultralytics else _USUAL,
        guessed=not ultralytics,
        unused=facts.besides(name),
    )


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task == "semantic":
        yield Claim(Strength.TASK, "semantic", (facts.because,))
        return
    name = _output(facts) if facts.task is None else None
    if name is None or not _is_shown(facts, name) or _is_another(facts, name):
        return
    warning = f"{NO_METADATA}: classes of pixels; set task if they are not"
    yield Claim(Strength.SHAPE, "semantic", (NO_METADATA,), (warning,))


def _is_shown(facts: Facts, name: str) -> bool:
    """Whether values say so: classes in whole numbers, or logits below 0 or probabilities, and no picture's colours."""
    count, last = _classes(facts, name) or (1, False)
    values = facts.arrays[name]
    if count == 0:
        return bool(values.dtype.kind != "b" and values.max(initial=0) < _MOST_CLASSES)
    if not 2 <= count <= _MOST_CLASSES:
        return False
    if facts.nc == count:
        return True
    if np.allclose(values.sum(axis=2 if last else 0), 1.0, atol=0.01):
        return count != 3 or bool(np.min(values) >= 0.0)
    return count != 3 and bool(np.min(values) < 0.0) and _is_detailed(facts, name, count, last)


def _is_detailed(facts: Facts, name: str, count: int, last: bool) -> bool:
    """Whether logits are called so, or are as fine as the row: coarser ones may be heatmaps, two of them a flow."""
    shape = facts.outputs[name]
    return name in _TELLING or (count > 2 and (shape[:2] if last else shape[1:]) == facts.size)


def _is_another(facts: Facts, name: str) -> bool:
    """Whether it may be what other models have: features, heads of detectors, masks of objects, heatmaps of people.

    Further outputs of a segmentation net are such maps too. Poses are estimated in pictures of people, upright 3:4.
    """
    strange = any(_classes(facts, other) is None and other not in facts.rows for other in facts.besides(name))
    tall, wide = facts.size
    return strange or bool(_OTHER_MAPS.search(name)) or tall * 3 == wide * 4


FAMILY = Family(
    name="semantic",
    readers={"semantic": None},
    fits=fits,
    claims=claims,
)
