"""The output layouts that have a decoder, each as one function that says whether a model's outputs fit it.

Shapes here are those of one job, without the batch dimension. N is a number of anchors, nc of classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

MOST_ROWS = 1000  # an output of objects (and not of anchors) has at most so many rows
STRIDES = (8, 16, 32)
_V5_ANCHORS = 3  # per cell


class Facts(Struct, frozen=True, kw_only=True):
    """All that the layouts may look at."""

    outputs: Mapping[str, tuple[int, ...]]  # shapes of one job, in the graph's order
    arrays: Mapping[str, npt.NDArray[Any]]  # what a noise picture gave: the first job's outputs
    inputs: tuple[str, ...]
    size: tuple[int, int]  # height, width of a row
    nc: int | None  # number of classes, where it is known
    kpt_shape: tuple[int, int] | None

    def only_of_rank(self, rank: int) -> tuple[str, tuple[int, ...]] | None:
        """Name and shape of the one output with so many dimensions (without the batch); None unless there is one."""
        found = [(name, shape) for name, shape in self.outputs.items() if len(shape) == rank]
        return found[0] if len(found) == 1 else None

    @property
    def class_scores(self) -> tuple[str, int] | None:
        """The one output that is a plain row of numbers, [nc] or [nc, 1, 1], and its length."""
        rows = [(name, max(shape)) for name, shape in self.outputs.items() if shape and math.prod(shape) == max(shape)]
        rows = [row for row in rows if self.nc in (None, row[1])] if len(rows) > 1 else rows
        return rows[0] if len(rows) == 1 else None

    def cells(self, strides: tuple[int, ...]) -> int:
        """Number of grid cells of a row, over all these strides."""
        height, width = self.size
        return sum((height // stride) * (width // stride) for stride in strides)


class Fit(Struct, frozen=True):
    """The outputs fit: why, and what the decoder has to know."""

    nc: int
    because: str
    parameters: dict[str, Any] = {}


class Misfit(Struct, frozen=True):
    """The outputs do not fit: what was found, and what the layout looks like."""

    why: str


Layout = Callable[[Facts, str], Fit | Misfit]


def fit(family: str, task: str, facts: Facts) -> Fit | Misfit:
    """Whether the outputs are laid out as `family` does for `task`."""
    return _LAYOUTS[family](facts, task)


def extra_columns(facts: Facts, task: str) -> int | None:
    """Columns after the classes: mask coefficients, keypoints or the angle; None where prototypes are missing."""
    if task == "segment":
        prototypes = facts.only_of_rank(3)
        return prototypes[1][0] if prototypes is not None else None
    if task == "keypoints":
        points, values = facts.kpt_shape or (17, 3)
        return points * values
    return 1 if task == "obb" else 0


def _table(facts: Facts, task: str) -> tuple[str, int, int, int] | Misfit:
    """The main output: its name, rows, columns, and the extra columns of the task."""
    table, extra = facts.only_of_rank(2), extra_columns(facts, task)
    if table is None:
        return Misfit(f"found outputs {_shown(facts)}; expected exactly one with two dimensions after the batch")
    if extra is None:
        return Misfit(f"found outputs {_shown(facts)}; expected mask prototypes [coefficients, height, width] too")
    return table[0], *table[1], extra  # type: ignore[return-value]


def _classes(facts: Facts, columns: int, rest: int, found: str, expected: str) -> Fit | Misfit:
    """Fit where `columns` minus `rest` is a number of classes, and the known number if there is one."""
    nc = columns - rest
    if nc < 1 or (facts.nc is not None and facts.nc != nc):
        known = f" with {facts.nc} classes" if facts.nc is not None else ""
        return Misfit(f"found {found}; expected {expected}{known}")
    names = f" for {nc} names" if facts.nc is not None else ""
    return Fit(nc, f"{found} is {expected}: {rest} + {nc} columns{names}")


def _yolov8(facts: Facts, task: str) -> Fit | Misfit:
    table = _table(facts, task)
    if isinstance(table, Misfit):
        return table
    name, channels, anchors, extra = table
    if facts.nc is None and channels >= anchors:
        return Misfit(f"found {name} [{channels}, {anchors}]; expected [4 + classes, anchors], channels first")
    found = f"{name} [{channels}, {anchors}]"
    return _classes(facts, channels, 4 + extra, found, f"[4 + classes{_plus(extra)}, anchors]")


def _yolov5(facts: Facts, task: str) -> Fit | Misfit:
    return _objectness_rows(facts, task)


def _yolox(facts: Facts, task: str) -> Fit | Misfit:
    result = _objectness_rows(facts, task)
    if isinstance(result, Misfit):
        return result
    name, shape = facts.only_of_rank(2) or ("", (0, 0))
    if shape[0] != facts.cells(STRIDES):
        return Misfit(f"found {name} {list(shape)}; expected one row per cell, {facts.cells(STRIDES)} at this size")
    return result


def _objectness_rows(facts: Facts, task: str) -> Fit | Misfit:
    table = _table(facts, task)
    if isinstance(table, Misfit):
        return table
    name, anchors, columns, extra = table
    expected = f"[anchors, 5 + classes{_plus(extra)}]"
    return _classes(facts, columns, 5 + extra, f"{name} [{anchors}, {columns}]", expected)


def _end2end(facts: Facts, task: str) -> Fit | Misfit:
    table = _table(facts, task)
    if isinstance(table, Misfit):
        return table
    name, rows, columns, extra = table
    found = f"{name} [{rows}, {columns}]"
    if columns != 6 + extra or rows > MOST_ROWS:
        return Misfit(f"found {found}; expected [at most {MOST_ROWS} objects, {6 + extra}]")
    return Fit(facts.nc or 0, f"{found} is box, score and class{_plus(extra)} of at most {rows} objects")


def _rtdetr_ultralytics(facts: Facts, task: str) -> Fit | Misfit:
    table = _table(facts, task)
    if isinstance(table, Misfit):
        return table
    name, rows, columns, _ = table
    if rows > MOST_ROWS:
        return Misfit(f"found {name} [{rows}, {columns}]; expected [at most {MOST_ROWS} queries, 4 + classes]")
    return _classes(facts, columns, 4, f"{name} [{rows}, {columns}]", "[queries, 4 + classes]")


def _rtdetr(facts: Facts, task: str) -> Fit | Misfit:
    missing = {"labels", "boxes", "scores"} - set(facts.outputs)
    if "orig_target_sizes" not in facts.inputs or missing:
        return Misfit(f"found outputs {_shown(facts)}; expected labels, boxes, scores, and an input orig_target_sizes")
    return Fit(facts.nc or 0, "an input orig_target_sizes, and outputs labels, boxes, scores: RT-DETR or D-FINE")


def _rfdetr(facts: Facts, task: str) -> Fit | Misfit:
    names = ("dets", "labels", "masks") if task == "segment" else ("dets", "labels")
    if any(name not in facts.outputs for name in names) or not _queries(facts, "dets", "labels"):
        return Misfit(f"found outputs {_shown(facts)}; expected {', '.join(names)}: dets [queries, 4]")
    return Fit(facts.outputs["labels"][1], f"outputs {', '.join(names)}: RF-DETR")


def _detr(facts: Facts, task: str) -> Fit | Misfit:
    if not _queries(facts, "pred_boxes", "logits"):
        return Misfit(f"found outputs {_shown(facts)}; expected logits and pred_boxes [queries, 4]")
    return Fit(facts.outputs["logits"][1] - 1, "outputs logits and pred_boxes: DETR")


def _queries(facts: Facts, boxes: str, classes: str) -> bool:
    box, scores = facts.outputs.get(boxes, ()), facts.outputs.get(classes, ())
    return len(box) == len(scores) == 2 and box[0] == scores[0] and box[1] == 4 and scores[1] >= 1


def _classifier(facts: Facts, task: str) -> Fit | Misfit:
    scores = facts.class_scores
    if scores is None:
        return Misfit(f"found outputs {_shown(facts)}; expected one row of class scores per picture")
    name, nc = scores
    if facts.nc is not None and facts.nc != nc:
        return Misfit(f"found {name} [{nc}]; expected {facts.nc} class scores, one per name")
    return Fit(nc, f"{name} [{nc}] is one score per class")


def _tensor(facts: Facts, task: str) -> Fit | Misfit:
    return Fit(0, "outputs are handed out as they are")


def _plus(extra: int) -> str:
    return f" + {extra}" if extra else ""


def _shown(facts: Facts) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in facts.outputs.items())


def objectness_family(facts: Facts) -> str | None:
    """Which of the families with an objectness column it is, by the number of rows and the noise picture's boxes.

    YOLOv5 and v7 have three anchors per cell, YOLOX one. YOLOX is exported undecoded, its x and y being a few cells at
    most, or decoded, spanning the row. YOLOv6 looks like decoded YOLOX, but its objectness is the constant 1 and
    its pictures are prepared as YOLOv5's are.
    """
    name, shape = facts.only_of_rank(2) or ("", (0, 0))
    if shape[0] in (_V5_ANCHORS * facts.cells(STRIDES), _V5_ANCHORS * facts.cells((*STRIDES, 64))):
        return "yolov5"
    if shape[0] != facts.cells(STRIDES) or shape[1] < 6:
        return None
    table = np.asarray(facts.arrays[name], np.float64)
    if float(np.max(np.abs(table[:, 0]))) < facts.size[1] / 4:
        return "yolox"
    return "yolov5" if bool(np.all(table[:, 4] == 1.0)) else "yolox-decoded"


_LAYOUTS: dict[str, Layout] = {
    "yolov8": _yolov8,
    "yolov5": _yolov5,
    "yolox": _yolox,
    "yolox-decoded": _yolox,
    "end2end": _end2end,
    "rtdetr-ultralytics": _rtdetr_ultralytics,
    "rtdetr-ultralytics-end2end": _end2end,
    "rtdetr": _rtdetr,
    "rfdetr": _rfdetr,
    "detr": _detr,
    "classifier": _classifier,
    "tensor": _tensor,
}
