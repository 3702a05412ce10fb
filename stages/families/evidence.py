"""Questions that several families ask about the outputs of a model. N is a number of anchors, nc of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from stages.families.facts import Facts
from stages.families.family import Fit, Misfit

MOST_ROWS = 1000  # an output of objects (and not of anchors) has at most so many rows
STRIDES = (8, 16, 32)
FRACTIONS = 2.0  # boxes that stay below are fractions of the picture, some of them reaching beyond its edge
NO_METADATA = "no metadata names the task; decided by shape"

Scores = Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[Any]]
ENOUGH_BOXES = 8  # of a trial picture, to tell by them how boxes are written
ANCHORS = 3  # per cell, of YOLOv5 and its like
TOLERANCE = 1e-2  # of scores that went through float16 or 8-bit integers


def extra_columns(facts: Facts, task: str) -> int | None:
    """Columns after the classes: mask coefficients, keypoints or the angle; None where prototypes are missing."""
    if task == "segment":
        prototypes = facts.only_of_rank(3)
        return prototypes[1][0] if prototypes is not None else None
    if task == "keypoints":
        points, values = facts.kpt_shape or (17, 3)
        return points * values
    return 1 if task == "obb" else 0


class Table(NamedTuple):
    """The main output, one row or column for each object or anchor."""

    name: str
    rows: int
    columns: int
    extra: int  # columns after the classes

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.name} [{self.rows}, {self.columns}]"


def table(facts: Facts, task: str) -> Table | Misfit:
    """The one output of two dimensions; of several alike the last, because models with auxiliary heads end with it."""
    tables = [(name, shape) for name, shape in facts.outputs.items() if len(shape) == 2]
    extra = extra_columns(facts, task)
    if not tables or len({shape for _, shape in tables}) > 1:
        return Misfit(f"found outputs {facts.shown}; expected exactly one with two dimensions after the batch")
    if extra is None or (task == "segment" and _channels_last(facts)):
        return Misfit(f"found outputs {facts.shown}; expected mask prototypes [coefficients, height, width] too")
    name, (rows, columns) = tables[-1]
    return Table(name, rows, columns, extra)


def _channels_last(facts: Facts) -> bool:
    """Whether the prototypes are [height, width, coefficients]: the first two span the row, and the last two do not."""
    _, (first, second, third) = facts.only_of_rank(3) or ("", (0, 0, 0))
    tall, wide = facts.size
    return first * wide == second * tall and second * wide != third * tall


def unused(facts: Facts, found: Table, task: str) -> tuple[str, ...]:
    """Outputs that are neither the table nor the prototypes."""
    prototypes = facts.only_of_rank(3) if task == "segment" else None
    return facts.besides(found.name, prototypes[0] if prototypes is not None else None)


def beyond(facts: Facts, name: str, part: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> str | None:
    """What speaks against a part of an output being scores: a number that a trial picture gave, beyond 0 to 1."""
    for values in [] if facts.insisted else facts.trials(name):
        scores = part(np.asarray(values, np.float64))
        if scores.size and not (scores.min() >= -TOLERANCE and scores.max() <= 1.0 + TOLERANCE):
            worst = scores.max() if not scores.max() <= 1.0 + TOLERANCE else scores.min()
            return f"a trial picture gave {worst:.4g} where {name} should have scores of 0 to 1"
    return None


def classes(facts: Facts, columns: int, rest: int, found: str, expected: str) -> Fit | Misfit:
    """Fit where `columns` minus `rest` is a number of classes, and the known number if there is one."""
    nc = columns - rest
    if nc < 1 or (facts.nc is not None and facts.nc != nc):
        known = f" with {facts.nc} classes" if facts.nc is not None else ""
        return Misfit(f"found {found}; expected {expected}{known}")
    names = f" for {nc} names" if facts.nc is not None else ""
    return Fit(nc, f"{found} is {expected}: {rest} + {nc} columns{names}")


def plus(extra: int) -> str:
    """Further columns, for people."""
    return f" + {extra}" if extra else ""


def objectness_rows(facts: Facts, task: str) -> Fit | Misfit:
    """[anchors, 5 + classes]: boxes, objectness and classes of YOLOv5 and YOLOX."""
    found = table(facts, task)
    if isinstance(found, Misfit):
        return found
    expected = f"[anchors, 5 + classes{plus(found.extra)}]"
    fit = classes(facts, found.columns, 5 + found.extra, found.shown, expected)
    if isinstance(fit, Misfit):
        return fit
    wrong = beyond(facts, found.name, lambda values: values[:, 4 : 5 + fit.nc])
    if wrong is not None:
        return Misfit(f"found {found.shown}; expected {expected}, but {wrong}")
    return msgspec.structs.replace(fit, parameters={"output": found.name}, unused=unused(facts, found, task))


def ready_objects(facts: Facts, task: str) -> Fit | Misfit:
    """[objects, 6 + extra]: box, score and class of each object, and what the task has besides."""
    found = table(facts, task)
    if isinstance(found, Misfit):
        return found
    shown, width = found.shown, 6 + found.extra
    if found.columns != width or found.rows > MOST_ROWS:
        return Misfit(f"found {shown}; expected [at most {MOST_ROWS} objects, {width}]")
    wrong = beyond(facts, found.name, lambda values: values[:, 4]) or _no_classes(facts, found.name)
    if wrong is not None:
        return Misfit(f"found {shown}; expected [objects, {width}], but {wrong}")
    swapped = _class_before_score(facts, found.name)
    if swapped is not None:
        return Misfit(f"found {shown}; expected [objects, {width}], but {swapped}")
    because = f"{shown} is box, score and class{plus(found.extra)} of at most {found.rows} objects"
    return Fit(facts.nc or 0, because, {"output": found.name}, unused=unused(facts, found, task))


def _class_before_score(facts: Facts, name: str) -> str | None:
    """What speaks for the class standing before the score: with one class its column is 0, as if nothing was found."""
    trials = [] if facts.insisted else [np.asarray(values, np.float64) for values in facts.trials(name)]
    last = np.concatenate([values[:, 5] for values in trials]) if trials else np.zeros(0)
    if any(values[:, 4].any() for values in trials) or not np.any(last != np.rint(last)):
        return None
    return "no row of a trial picture has a score, and the column of the class has fractions: class before score?"


def _no_classes(facts: Facts, name: str) -> str | None:
    """What speaks against the sixth column being numbers of classes, in rows that are used."""
    for values in [] if facts.insisted else facts.trials(name):
        numbers = np.asarray(values, np.float64)[np.asarray(values)[:, 4] > 0, 5]
        if np.abs(numbers - np.rint(numbers)).max(initial=0.0) > TOLERANCE or numbers.min(initial=0.0) < -TOLERANCE:
            return "a trial picture gave no whole number where it should have the class"
        if facts.nc is not None and numbers.max(initial=0.0) > facts.nc - 1 + TOLERANCE:
            return f"a trial picture gave the class {numbers.max():.0f}, and there are {facts.nc} names"
    return None


def queries(facts: Facts, boxes: str, scores: str) -> bool:
    """Whether the outputs of these names are boxes [q, 4] and class scores [q, c] of the same queries."""
    box, score = facts.outputs.get(boxes, ()), facts.outputs.get(scores, ())
    return len(box) == len(score) == 2 and box[0] == score[0] and box[1] == 4 and score[1] >= 1


def are_scores(facts: Facts, name: str) -> bool:
    """Whether all that the trial picture gave there are numbers from 0 to 1."""
    values = facts.arrays[name]
    return bool(values.size == 0 or (np.min(values) >= 0.0 and np.max(values) <= 1.0))


def are_fractions(facts: Facts, name: str) -> bool:
    """Whether the boxes that the trial picture gave there reach no further than fractions of the picture do."""
    return 0.0 < float(np.max(np.abs(facts.arrays[name]), initial=0.0)) <= FRACTIONS


def not_corners(facts: Facts, boxes: str, scores: Scores | None = None) -> str | None:
    """What speaks against the boxes [n, 4] or [n, 1, 4] being xyxy: most end left of or above where they begin.

    `scores` picks the scores of the rows out of what a trial picture gave: rows without any may hold anything.
    """
    for outputs in [] if facts.insisted else (facts.arrays, *facts.others):
        values = np.asarray(outputs[boxes], np.float64)
        rows = values.reshape(-1, values.shape[-1])[:, :4]
        rows = rows if scores is None else rows[scores(outputs) > 0]
        ordered = (rows[:, 2] >= rows[:, 0]) & (rows[:, 3] >= rows[:, 1])
        if len(rows) >= ENOUGH_BOXES and np.mean(ordered) < 0.5:
            return f"{np.sum(~ordered)} of {len(rows)} boxes of a trial picture end left of or above where they begin"
    return None


def fractions_of(facts: Facts, name: str, part: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> float | None:
    """How far the boxes of all trial pictures reach, where that is no further than fractions of a picture do."""
    far = max(float(np.max(np.abs(part(values)), initial=0.0)) for values in facts.trials(name))
    return far if 0.0 < far <= FRACTIONS else None


def are_probabilities(facts: Facts, name: str) -> bool:
    """Whether each row of all trial pictures has no number below 0 and sums to 1, as after a softmax."""
    rows = np.concatenate([np.asarray(values, np.float64) for values in facts.trials(name)])
    return bool(rows.min() >= -TOLERANCE and np.abs(rows.sum(axis=1) - 1.0).max() <= TOLERANCE)


def reach(facts: Facts) -> float:
    """How far from 0 the first four columns get for the noise picture: pixels get further than fractions."""
    name, _ = facts.only_of_rank(2) or ("", ())
    return float(np.max(np.abs(facts.arrays[name][:, :4]), initial=0.0)) if name else 0.0


def ready_task(facts: Facts) -> str | None:
    """The task of an output [objects, 6 or more] of ready objects, by its columns alone; None where it has others."""
    found = facts.only_of_rank(2)
    if found is None or not found[1][1] < found[1][0] <= MOST_ROWS:
        return None
    columns, prototypes = found[1][1], facts.only_of_rank(3)
    if prototypes is not None and columns == 6 + prototypes[1][0]:
        return "segment"
    return {6: "detect", 7: "obb"}.get(columns)


def objectness_family(facts: Facts) -> str | None:
    """Which of the families with an objectness column it is, by the number of rows and the noise picture's boxes.

    YOLOv5 and v7 have three anchors per cell, YOLOX one. YOLOX is exported undecoded, its x and y being a few cells at
    most, or decoded, spanning the row. YOLOv6 looks like decoded YOLOX, but its objectness is the constant 1 and
    its pictures are prepared as YOLOv5's are.
    """
    name, shape = facts.only_of_rank(2) or ("", (0, 0))
    if anchors_of_yolov5(facts, shape[0]):
        return "yolov5"
    if shape[0] not in facts.counts(STRIDES) or shape[1] < 6:
        return None
    values = np.asarray(facts.arrays[name], np.float64)
    if float(np.max(np.abs(values[:, 0]))) < facts.size[1] / 4:
        return "yolox"
    return "yolov5" if bool(np.all(values[:, 4] == 1.0)) else "yolox-decoded"


def anchors_of_yolov5(facts: Facts, rows: int) -> bool:
    """Whether so many rows are YOLOv5's three anchors for each cell, on three levels or on four."""
    return rows in {ANCHORS * count for count in facts.counts(STRIDES, (*STRIDES, 64), (16, 32))}


def rows_of(facts: Facts, family: str) -> bool:
    """Whether nothing but the number of rows says that the model is of this family with an objectness column."""
    return ready_task(facts) is None and objectness_family(facts) == family
