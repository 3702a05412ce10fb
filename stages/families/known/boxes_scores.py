"""Boxes and class scores in outputs of their own, suppression still to be done.

YOLO-NAS, DAMO-YOLO, PP-YOLOE without its end, YOLOv4, and UltraFace, whose first class means "nothing".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy.typing as npt

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Floats, Outputs, as_float32, require_finite
from stages.families.evidence import STRIDES, are_fractions, are_scores, not_corners
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Strength
from stages.families.queries import best_of_rows, unit_of_boxes
from stages.tasks.options import DetectOptions


class Pair(NamedTuple):
    """Which output is what, and how many of the score columns are no classes."""

    boxes: str  # [n, 4] or [n, 1, 4]
    scores: str  # [n, columns], or [columns, n]


class BoxesAndScores:
    """xyxy in row pixels, or fractions where `normalised` says so; scores of 0 to 1, `skipped` columns before them."""

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._pair = Pair(*spec.parameters["outputs"])
        self._skipped: int = spec.parameters.get("skipped", 0)
        self._unit = unit_of_boxes(spec)
        self.overlapping = not spec.parameters.get("nms", False)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        boxes, scores = self._tables(outputs)
        index, best, classes = best_of_rows(scores[:, self._skipped :], options)
        found = boxes[index] * self._unit
        require_finite(found)
        return Candidates(found, best, classes, boxes[index, :0], index)

    def _tables(self, outputs: Outputs) -> tuple[Floats, Floats]:
        boxes, scores = outputs.get(self._pair.boxes), outputs.get(self._pair.scores)
        if boxes is None or scores is None or boxes.shape[-1:] != (4,) or scores.ndim != 2:
            raise InferError(f"expected boxes [n, 4] in {self._pair.boxes} and scores in {self._pair.scores}")
        table = as_float32(boxes).reshape(-1, 4)
        columns = as_float32(scores if len(scores) == len(table) else scores.T)
        if len(columns) != len(table) or columns.shape[1] <= self._skipped:
            raise InferError(f"expected a row of scores for each of {len(table)} boxes, the model gave {scores.shape}")
        return table, columns


def pair_of(arrays: Mapping[str, npt.NDArray[Any]]) -> Pair | None:
    """The two outputs, by their shapes."""
    boxes = [
        name for name, array in arrays.items() if array.shape[-1:] == (4,) and array.ndim in (2, 3) and array.size > 4
    ]
    # With four classes both have four columns: then the names have to tell.
    boxes = [name for name in boxes if "box" in name.lower()] or boxes if len(boxes) == 2 else boxes
    others = [name for name in arrays if name not in boxes]
    if len(arrays) != 2 or len(boxes) != 1 or arrays[boxes[0]].shape[1:-1] not in ((), (1,)):
        return None
    scores = arrays[others[0]]
    if scores.ndim != 2 or len(arrays[boxes[0]]) not in scores.shape or scores.dtype.kind != "f":
        return None
    return Pair(boxes[0], others[0])


def columns_of(arrays: Mapping[str, npt.NDArray[Any]], pair: Pair) -> int:
    """How many score columns there are."""
    count, scores = len(arrays[pair.boxes]), arrays[pair.scores]
    return int(scores.shape[1] if len(scores) == count else scores.shape[0])


def fit_with(facts: Facts, skipped: int, because: str) -> Fit | Misfit:
    """Boxes and scores of which `skipped` columns are no classes."""
    pair = pair_of(facts.arrays)
    if pair is None:
        return Misfit(f"found outputs {facts.shown}; expected boxes [n, 4] and scores [n, classes]")
    nc = columns_of(facts.arrays, pair) - skipped
    if nc < 1 or (facts.nc is not None and facts.nc != nc):
        return Misfit(f"found {nc} columns of class scores; expected {facts.nc or 'at least 1'}")
    if not are_scores(facts, pair.scores):
        return Misfit(f"found numbers beyond 0..1 in {pair.scores}; expected scores")
    wrong = not_corners(facts, pair.boxes)
    if wrong is not None:
        return Misfit(f"found {pair.boxes} that are no xyxy: {wrong}; expected decoded boxes")
    parameters = {"outputs": list(pair), "skipped": skipped, "normalised": are_fractions(facts, pair.boxes)}
    return Fit(nc, f"{pair.boxes} and {pair.scores} are {because}", parameters, guessed=True)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    return fit_with(facts, 0, "a box and class scores of each anchor")


def claims(facts: Facts) -> Iterator[Claim]:
    pair = pair_of(facts.arrays)
    if pair is None or facts.task not in (None, "detect"):
        return
    rows = len(facts.arrays[pair.boxes])
    cells = [facts.cells(STRIDES), facts.cells((*STRIDES, 64)), 3 * facts.cells(STRIDES)]
    evidence = (f"{rows} boxes are those of all anchors at this size",) if rows in cells else ()
    units = "fractions of the picture" if are_fractions(facts, pair.boxes) else "pixels"
    warning = f"boxes are taken as xyxy in {units}"
    yield Claim(Strength.SHAPE, "detect", evidence, (warning,))


FAMILY = Family(
    name="boxes-scores",
    readers={"detect": BoxesAndScores},
    fits=fits,
    claims=claims,
    needs_nms=True,
    export='torch.onnx.export(..., dynamic_axes={name: {0: "batch"} for name in ("input", "boxes", "scores")})',
)
