"""YuNet, the face detector of OpenCV's model zoo: classes, objectness, boxes and five points of each stride."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Floats, Outputs, corners, require_finite
from stages.families.facts import Facts
from stages.families.family import PIXELS, Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.grids import grid
from stages.families.known.scrfd import POINTS
from stages.families.queries import best_of_rows, named_output
from stages.tasks.options import DetectOptions

_STRIDES = (8, 16, 32)
_COLUMNS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 2 * POINTS}


class YuNet:
    """`cls_8` [n, 1], `obj_8` [n, 1], `bbox_8` [n, 4], `kps_8` [n, 10], and the same of the strides 16 and 32.

    score = sqrt(class x objectness), each cut to 0..1; centre = (cell + prediction) x stride, size = exp(prediction) x
    stride, points = (cell + prediction) x stride: `FaceDetectorYNImpl::postProcess` of OpenCV.
    """

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._cells = grid(spec.preprocess["width"], spec.preprocess["height"], _STRIDES)
        self._extra = extra
        self.overlapping = not spec.parameters.get("nms", False)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        classes, objectness = self._joined(outputs, "cls"), self._joined(outputs, "obj")
        scores = np.sqrt(np.clip(classes, 0, 1) * np.clip(objectness, 0, 1))
        index, best, numbers = best_of_rows(scores, options)
        places, strides = self._cells.places[index], self._cells.strides[index]
        rows = self._joined(outputs, "bbox")[index]
        with np.errstate(over="ignore"):  # an infinite size is reported as such
            sizes = np.exp(rows[:, 2:]) * strides
        boxes = corners(np.concatenate(((places + rows[:, :2]) * strides, sizes), axis=1))
        require_finite(boxes)
        points = boxes[:, :0]
        if self._extra:
            points = (self._joined(outputs, "kps")[index] + np.tile(places, POINTS)) * strides
        return Candidates(boxes, best, numbers, points, index)

    def _joined(self, outputs: Outputs, kind: str) -> Floats:
        table = np.concatenate([named_output(outputs, f"{kind}_{stride}", 2) for stride in _STRIDES])
        expected = (len(self._cells), _COLUMNS[kind])
        if table.shape != expected:
            raise InferError(f"expected {list(expected)} in all {kind} outputs, the model gave {list(table.shape)}")
        return table


def are_outputs(arrays: Mapping[str, npt.NDArray[Any]], size: tuple[int, int]) -> bool:
    """Whether the outputs have YuNet's names and shapes."""
    height, width = size
    expected = {
        f"{kind}_{stride}": (len(grid(width, height, (stride,))), columns)
        for kind, columns in _COLUMNS.items()
        for stride in _STRIDES
    }
    return {name: array.shape for name, array in arrays.items()} == expected


def fits(facts: Facts, task: str) -> Fit | Misfit:
    if not are_outputs(facts.arrays, facts.size) or facts.nc not in (None, 1):
        return Misfit(f"found outputs {facts.shown}; expected cls, obj, bbox and kps of the strides 8, 16 and 32")
    parameters: dict[str, Any] = {"kpt_shape": [POINTS, 2]} if task == "keypoints" else {}
    return Fit(1, "outputs cls_8 to kps_32: YuNet", parameters, ("face",))


def claims(facts: Facts) -> Iterator[Claim]:
    if are_outputs(facts.arrays, facts.size):
        yield Claim(Strength.NAMES, "keypoints")


FAMILY = Family(
    name="yunet",
    readers={"keypoints": YuNet, "detect": YuNet},
    fits=fits,
    claims=claims,
    recipe=Recipe("letterbox-corner", PIXELS, "bgr", pad=0),
    needs_nms=True,
)
