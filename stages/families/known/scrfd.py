"""SCRFD of InsightFace: for each stride, scores, distances to the sides, and mostly the five points of a face."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Floats, Outputs, require_finite
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.grids import grid
from stages.families.queries import best_of_rows, named_output
from stages.tasks.options import DetectOptions

POINTS = 5  # eyes, nose, corners of the mouth
_LEVELS = (((8, 16, 32), 2), ((8, 16, 32, 64, 128), 1))  # strides, and anchors of each cell
_RECIPE = Recipe("letterbox-corner", ((127.5, 127.5, 127.5), (128.0, 128.0, 128.0)), pad=0)


class Level(NamedTuple):
    """The outputs of one stride, by name."""

    scores: str  # [n, 1]
    boxes: str  # [n, 4]
    points: str | None  # [n, 10]


class Scrfd:
    """Scores of 0 to 1; boxes and points as distances from the cell's corner, in strides (`SCRFD.forward`)."""

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._levels = [Level(*names) for names in spec.parameters["outputs"]]
        strides, anchors = next(level for level in _LEVELS if len(level[0]) == len(self._levels))
        self._cells = grid(spec.preprocess["width"], spec.preprocess["height"], strides, anchors)
        self._extra = extra
        self.overlapping = not spec.parameters.get("nms", False)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        scores = self._joined(outputs, [level.scores for level in self._levels], 1)
        index, best, classes = best_of_rows(scores, options)
        sides = self._joined(outputs, [level.boxes for level in self._levels], 4)[index]
        boxes = self._cells.boxes(index, sides, 0.0)
        require_finite(boxes)
        points = boxes[:, :0]
        if self._extra:
            steps = self._joined(outputs, [str(level.points) for level in self._levels], self._extra)[index]
            points = (steps + np.tile(self._cells.places[index], self._extra // 2)) * self._cells.strides[index]
        return Candidates(boxes, best, classes, points, index)

    def _joined(self, outputs: Outputs, names: list[str], columns: int) -> Floats:
        table = np.concatenate([named_output(outputs, name, 2) for name in names])
        if table.shape != (len(self._cells), columns):
            raise InferError(f"expected [{len(self._cells)}, {columns}] in all, the model gave {list(table.shape)}")
        return table


def levels(arrays: Mapping[str, npt.NDArray[Any]], size: tuple[int, int]) -> list[Level] | None:
    """The outputs of each stride, told by their shapes, the finest stride first; None where they are not SCRFD's."""
    height, width = size
    for strides, anchors in _LEVELS:
        rows = [len(grid(width, height, (stride,), anchors)) for stride in strides]
        found = [_level(arrays, count) for count in rows]
        whole = [level for level in found if level is not None]
        named = sum(2 + (level.points is not None) for level in whole)
        if len(whole) == len(rows) and len(arrays) == named and len({level.points is None for level in whole}) == 1:
            return whole
    return None


def _level(arrays: Mapping[str, npt.NDArray[Any]], rows: int) -> Level | None:
    by_columns: dict[int, list[str]] = {1: [], 4: [], 2 * POINTS: []}
    for name, array in arrays.items():
        if array.ndim == 2 and len(array) == rows and array.shape[1] in by_columns:
            by_columns[array.shape[1]].append(name)
    scores, boxes, points = by_columns.values()
    if len(scores) != 1 or len(boxes) != 1 or len(points) > 1:
        return None
    return Level(scores[0], boxes[0], points[0] if points else None)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    found = levels(facts.arrays, facts.size)
    if found is None or (task == "keypoints" and found[0].points is None) or facts.nc not in (None, 1):
        return Misfit(f"found outputs {facts.shown}; expected scores, distances and points of each stride")
    parameters: dict[str, Any] = {"outputs": [list(level) for level in found]}
    if task == "keypoints":
        parameters["kpt_shape"] = [POINTS, 2]
    return Fit(1, f"outputs of {len(found)} strides, as many rows as they have anchors: SCRFD", parameters, ("face",))


def claims(facts: Facts) -> Iterator[Claim]:
    found = levels(facts.arrays, facts.size)
    if found is not None:
        yield Claim(Strength.NAMES, "detect" if found[0].points is None else "keypoints")


FAMILY = Family(
    name="scrfd",
    readers={"keypoints": Scrfd, "detect": Scrfd},
    fits=fits,
    claims=claims,
    recipe=_RECIPE,
    needs_nms=True,
    export="python tools/scrfd2onnx.py CONFIG.py MODEL.pth --shape -1 -1, and a batch dimension in its dynamic_axes",
)
