"""NanoDet and NanoDet-Plus as their tools export them: class scores, and each side's distance as a distribution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Outputs, as_float32, only_output
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.grids import grid, mean_distances
from stages.families.queries import best_of_rows
from stages.tasks.options import DetectOptions

_BINS = 8  # of a distance: 0 to 7 strides, in all published models
_SIDES = 4 * _BINS
_PLAIN, _PLUS = (8, 16, 32), (8, 16, 32, 64)
# BGR, as in the configurations of its repository
_STATISTICS = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)


class NanoDet:
    """[cells, classes + 32]: scores (sigmoid done), then the logits of the distances to left, top, right, bottom.

    A distance counts from the middle of the cell in NanoDet, and from its corner in NanoDet-Plus, which has a fourth
    level.
    """

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        width, height = spec.preprocess["width"], spec.preprocess["height"]
        plus, plain = (grid(width, height, strides) for strides in (_PLUS, _PLAIN))
        self._grids = {len(plus): (plus, 0.0), len(plain): (plain, 0.5)}
        self.overlapping = not spec.parameters.get("nms", False)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        rows = as_float32(only_output(outputs, 2))
        if len(rows) not in self._grids or rows.shape[1] <= _SIDES:
            raise InferError(f"expected [{' or '.join(map(str, self._grids))}, classes + {_SIDES}], got {rows.shape}")
        cells, middle = self._grids[len(rows)]
        index, best, classes = best_of_rows(rows[:, :-_SIDES], options)
        boxes = cells.boxes(index, mean_distances(rows[index, -_SIDES:]), middle)
        return Candidates(boxes, best, classes, rows[index, :0], index)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    name, shape = facts.only_of_rank(2) or ("", (0, 0))
    height, width = facts.size
    cells = [len(grid(width, height, strides)) for strides in (_PLAIN, _PLUS)]
    nc = shape[1] - _SIDES
    if shape[0] not in cells or nc < 1 or facts.nc not in (None, nc):
        known = f"{facts.nc} classes" if facts.nc is not None else "classes"
        return Misfit(f"found {facts.shown}; expected [{cells[0]} or {cells[1]} cells, {known} + {_SIDES}]")
    scores = facts.arrays[name][:, :nc]
    if not 0.0 <= float(scores.min()) <= float(scores.max()) <= 1.0 or not scores.any():
        return Misfit(f"found numbers beyond 0..1, or none, in the first {nc} columns; expected class scores")
    if not facts.insisted and all(_are_fractions(values[:, nc:]) for values in facts.trials(name)):
        return Misfit(f"found numbers of 0..1 alone in the last {_SIDES} columns; expected logits of distances")
    which = "NanoDet" if shape[0] == cells[0] else "NanoDet-Plus"
    return Fit(nc, f"{name} {list(shape)} is {nc} classes and 4 x {_BINS} of the distances of each cell: {which}")


def _are_fractions(values: npt.NDArray[Any]) -> bool:
    """Whether these are scores or boxes as fractions: logits of distances are never all so small and above 0."""
    return bool(np.any(values != 0.0) and np.min(values) >= 0.0 and np.max(values) <= 1.0)


def claims(facts: Facts) -> Iterator[Claim]:
    """YOLOX has as many rows and more than five columns too, but the first four are no scores."""
    if facts.task not in (None, "detect") or isinstance(fits(facts, "detect"), Misfit):
        return
    named = facts.nc is not None
    doubt = "decided by shape: cells with classes and 32 further columns; set family if this is no NanoDet"
    yield Claim(Strength.TASK if named else Strength.SHAPE, "detect", (), () if named else (doubt,))


FAMILY = Family(
    name="nanodet",
    readers={"detect": NanoDet},
    fits=fits,
    claims=claims,
    recipe=Recipe("stretch", _STATISTICS, "bgr"),
    needs_nms=True,
    export="tools/export_onnx.py of NanoDet fixes the batch to 1; give torch.onnx.export there dynamic_axes",
)
