"""PicoDet of PaddleDetection without its end: of each stride class scores, and each side's distance as a distribution.

Read as in `deploy/python/picodet_postprocess.py` of its repository.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Floats, Outputs
from stages.families.facts import Facts
from stages.families.family import IMAGENET, Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.grids import grid, mean_distances
from stages.families.queries import best_of_rows, named_output
from stages.tasks.options import DetectOptions

_LEVELS = ((8, 16, 32, 64), (8, 16, 32))
_FEWEST_BINS = 4  # of a distance; 8 in all published models


class Level(NamedTuple):
    """The outputs of one stride, by name."""

    scores: str  # [n, classes]
    sides: str  # [n, 4 x bins]


class PicoDet:
    """Scores (sigmoid done) and logits of the distances to left, top, right, bottom, from the middle of each cell."""

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._levels = [Level(*names) for names in spec.parameters["outputs"]]
        strides = next(strides for strides in _LEVELS if len(strides) == len(self._levels))
        self._cells = grid(spec.preprocess["width"], spec.preprocess["height"], strides)
        self.overlapping = not spec.parameters.get("nms", False)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        scores = self._joined(outputs, [level.scores for level in self._levels])
        sides = self._joined(outputs, [level.sides for level in self._levels])
        index, best, classes = best_of_rows(scores, options)
        boxes = self._cells.boxes(index, mean_distances(sides[index]), 0.5)
        return Candidates(boxes, best, classes, scores[index, :0], index)

    def _joined(self, outputs: Outputs, names: list[str]) -> Floats:
        tables = [named_output(outputs, name, 2) for name in names]
        rows, columns = sum(map(len, tables)), {table.shape[1] for table in tables}
        if rows != len(self._cells) or len(columns) != 1:
            raise InferError(f"expected {len(self._cells)} rows in {', '.join(names)}, the model gave {rows}")
        return np.concatenate(tables)


def levels(facts: Facts) -> list[Level] | None:
    """The outputs of each stride, the finest first, told by rows and values; None where they are not PicoDet's."""
    height, width = facts.size
    for strides in _LEVELS:
        rows = [len(grid(width, height, (stride,))) for stride in strides]
        found = [level for level in (_level(facts.arrays, count) for count in rows) if level is not None]
        columns = {(facts.outputs[level.scores][1], facts.outputs[level.sides][1]) for level in found}
        if len(found) == len(rows) and len(facts.outputs) == 2 * len(rows) and len(columns) == 1:
            return found
    return None


def _level(arrays: Mapping[str, npt.NDArray[Any]], rows: int) -> Level | None:
    """The two tables of so many rows: one of numbers of 0 to 1, and one of four distributions."""
    tables = [name for name, array in arrays.items() if array.ndim == 2 and len(array) == rows]
    if len(tables) != 2:
        return None
    scores = [name for name in tables if _are_scores(arrays[name])]
    sides = [name for name in tables if _are_sides(arrays[name]) and name not in scores[:1]]
    return Level(scores[0], sides[0]) if scores and sides else None


def _are_scores(values: npt.NDArray[Any]) -> bool:
    return bool(np.min(values) >= 0.0 and np.max(values) <= 1.0)


def _are_sides(values: npt.NDArray[Any]) -> bool:
    return bool(values.shape[1] % 4 == 0 and values.shape[1] // 4 >= _FEWEST_BINS)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    found = levels(facts)
    if found is None:
        return Misfit(f"found outputs {facts.shown}; expected of each stride class scores and four distributions")
    nc, sides = facts.outputs[found[0].scores][1], facts.outputs[found[0].sides][1]
    if facts.nc not in (None, nc):
        return Misfit(f"found {nc} columns of class scores; expected {facts.nc}, one for each name")
    because = f"of {len(found)} strides {nc} classes and 4 x {sides // 4} of the distances of each cell: PicoDet"
    return Fit(nc, because, {"outputs": [list(level) for level in found]})


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task in (None, "detect") and levels(facts) is not None:
        doubt = "decided by shape: PicoDet's heads; set family if they are another model's"
        yield Claim(Strength.SHAPE, "detect", (), () if facts.nc is not None else (doubt,))


FAMILY = Family(
    name="picodet",
    readers={"detect": PicoDet},
    fits=fits,
    claims=claims,
    recipe=Recipe("stretch", IMAGENET),
    needs_nms=True,
    export="paddle2onnx --model_dir FOLDER --model_filename model.pdmodel --params_filename model.pdiparams "
    "--save_file MODEL.onnx  (of a model exported with export.post_process=False)",
)
