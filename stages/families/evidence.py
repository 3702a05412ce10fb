"""Questions that several families ask about the outputs of a model. N is a number of anchors, nc of classes."""

from __future__ import annotations

import numpy as np

from stages.families.facts import Facts
from stages.families.family import Fit, Misfit

MOST_ROWS = 1000  # an output of objects (and not of anchors) has at most so many rows
STRIDES = (8, 16, 32)
FRACTIONS = 2.0  # boxes that stay below are fractions of the picture, some of them reaching beyond its edge
NO_METADATA = "no metadata names the task; decided by shape"

PREPARING = "set resize, filter, color, mean and std if this one was trained on others"

_V5_ANCHORS = 3  # per cell


def extra_columns(facts: Facts, task: str) -> int | None:
    """Columns after the classes: mask coefficients, keypoints or the angle; None where prototypes are missing."""
    if task == "segment":
        prototypes = facts.only_of_rank(3)
        return prototypes[1][0] if prototypes is not None else None
    if task == "keypoints":
        points, values = facts.kpt_shape or (17, 3)
        return points * values
    return 1 if task == "obb" else 0


def table(facts: Facts, task: str) -> tuple[str, int, int, int] | Misfit:
    """The main output: its name, rows, columns, and the extra columns of the task."""
    found, extra = facts.only_of_rank(2), extra_columns(facts, task)
    if found is None:
        return Misfit(f"found outputs {facts.shown}; expected exactly one with two dimensions after the batch")
    if extra is None:
        return Misfit(f"found outputs {facts.shown}; expected mask prototypes [coefficients, height, width] too")
    return found[0], *found[1], extra  # type: ignore[return-value]


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
    name, anchors, columns, extra = found
    expected = f"[anchors, 5 + classes{plus(extra)}]"
    return classes(facts, columns, 5 + extra, f"{name} [{anchors}, {columns}]", expected)


def ready_objects(facts: Facts, task: str) -> Fit | Misfit:
    """[objects, 6 + extra]: box, score and class of each object, and what the task has besides."""
    found = table(facts, task)
    if isinstance(found, Misfit):
        return found
    name, rows, columns, extra = found
    shown = f"{name} [{rows}, {columns}]"
    if columns != 6 + extra or rows > MOST_ROWS:
        return Misfit(f"found {shown}; expected [at most {MOST_ROWS} objects, {6 + extra}]")
    return Fit(facts.nc or 0, f"{shown} is box, score and class{plus(extra)} of at most {rows} objects")


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


def channels_first(facts: Facts) -> bool:
    """Whether the main output looks like [4 + classes, anchors]."""
    found = facts.only_of_rank(2)
    if found is None or found[1][0] >= found[1][1] or ready_task(facts) is not None:
        return False
    return found[1][1] == facts.cells(STRIDES) or objectness_family(facts) is None


def objectness_family(facts: Facts) -> str | None:
    """Which of the families with an objectness column it is, by the number of rows and the noise picture's boxes.

    YOLOv5 and v7 have three anchors per cell, YOLOX one. YOLOX is exported undecoded, its x and y being a few cells at
    most, or decoded, spanning the row. YOLOv6 looks like decoded YOLOX, but its objectness is the constant 1 and
    its pictures are prepared as YOLOv5's are.
    """
    name, shape = facts.only_of_rank(2) or ("", (0, 0))
    if anchors_of_yolov5(facts, shape[0]):
        return "yolov5"
    if shape[0] != facts.cells(STRIDES) or shape[1] < 6:
        return None
    values = np.asarray(facts.arrays[name], np.float64)
    if float(np.max(np.abs(values[:, 0]))) < facts.size[1] / 4:
        return "yolox"
    return "yolov5" if bool(np.all(values[:, 4] == 1.0)) else "yolox-decoded"


def anchors_of_yolov5(facts: Facts, rows: int) -> bool:
    """Whether so many rows are YOLOv5's three anchors for each cell, on three levels or on four."""
    return rows in (_V5_ANCHORS * facts.cells(STRIDES), _V5_ANCHORS * facts.cells((*STRIDES, 64)))


def rows_of(facts: Facts, family: str) -> bool:
    """Whether nothing but the number of rows says that the model is of this family with an objectness column."""
    return ready_task(facts) is None and not channels_first(facts) and objectness_family(facts) == family
