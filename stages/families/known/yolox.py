"""YOLOX as it is exported by default: boxes in grid units, still to be decoded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Floats, Ints, corners
from stages.families.evidence import NO_METADATA, STRIDES, objectness_rows, rows_of
from stages.families.facts import Facts
from stages.families.family import PIXELS, Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.known.yolov5 import YoloV5

RECIPE = Recipe("letterbox-corner", PIXELS, "bgr")
EXPORT = "python tools/export_onnx.py -f EXP.py -c MODEL.pth --dynamic --output-name MODEL.onnx"


class YoloX(YoloV5):
    """xy = (prediction + grid) x stride, wh = exp(prediction) x stride, strides 8, 16, 32 (and 64).

    The grid runs row by row over each level, the finest level first, as in `YOLOXHead.decode_outputs`.
    """

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        super().__init__(spec, extra)
        strides = tuple(spec.parameters.get("strides", STRIDES))
        width, height = spec.preprocess["width"], spec.preprocess["height"]
        self._columns: Ints = np.array([-(-width // stride) for stride in strides], np.int64)
        cells = self._columns * np.array([-(-height // stride) for stride in strides], np.int64)
        self._ends = np.cumsum(cells)
        self._starts = self._ends - cells
        self._strides: Ints = np.array(strides, np.int64)

    def _boxes(self, boxes: Floats, index: Ints, anchors: int) -> Floats:
        if anchors != self._ends[-1]:
            raise InferError(f"expected {self._ends[-1]} anchors for this input size, the model gave {anchors}")
        level = np.searchsorted(self._ends, index, side="right")
        row, column = np.divmod(index - self._starts[level], self._columns[level])
        stride = self._strides[level].astype(np.float32)[:, None]
        centre = (boxes[:, :2] + np.stack((column, row), axis=1).astype(np.float32)) * stride
        with np.errstate(over="ignore"):  # an infinite size is reported as such
            size = np.exp(boxes[:, 2:]) * stride
        return corners(np.concatenate((centre, size), axis=1))


def fits(facts: Facts, task: str) -> Fit | Misfit:
    result = objectness_rows(facts, task)
    if isinstance(result, Misfit):
        return result
    name = result.parameters["output"]
    rows, cells = len(facts.arrays[name]), facts.counts(STRIDES)
    if rows not in cells:
        expected = " or ".join(map(str, sorted(cells)))
        return Misfit(f"found {rows} rows in {name}; expected one for each cell, {expected} at this size")
    boxes = [values[:, :4] for values in facts.trials(name)]
    if not facts.insisted and all(np.any(box) and np.min(box) >= 0.0 and np.max(box) <= 1.0 for box in boxes):
        return Misfit(f"found boxes of 0 to 1 in {name}: fractions of the picture; expected steps in the grid")
    return result


def by_rows(facts: Facts, family: str, other: str) -> Iterator[Claim]:
    """A claim by the number of rows, told apart from the `other` family by the boxes of the trial picture alone."""
    if facts.task is None and rows_of(facts, family):
        evidence = (NO_METADATA, "the number of rows is that of its anchors at this size")
        warning = f"{NO_METADATA}: {family}, by the boxes of a trial picture; set family = {other} if they are wrong"
        yield Claim(Strength.SHAPE, "detect", evidence, (warning,))


FAMILY = Family(
    name="yolox",
    readers={"detect": YoloX},
    fits=fits,
    claims=lambda facts: by_rows(facts, "yolox", "yolox-decoded"),
    recipe=RECIPE,
    needs_nms=True,
    export=EXPORT,
)
