"""What the picture as a whole shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Floats, Ints, Outputs, as_float32, require_finite, require_scores
from stages.geometry import Geometry
from stages.scores import sigmoid, softmax
from stages.tasks import Arrays
from stages.tasks.options import ClassifyOptions, OptionsReader

_SUM_TOLERANCE = 1e-2  # of probabilities that went through float16


class Classify:
    """The best classes with their scores; equal scores stay in the order of the classes.

    Scores are probabilities. What makes them of the model's numbers is known from its trial (`activation` of its
    parameters: softmax, sigmoid, or none); where not, a single-label row that has negative numbers or does not sum to
    1 gets a softmax, and a multi-label row with a number outside 0..1 gets a sigmoid. One number stands for two
    classes where there are two names, and is the score of the second.
    """

    name: ClassVar[str] = "classify"

    def __init__(self, spec: ModelSpec) -> None:
        self._classes = len(spec.names)
        self._multi_label = bool(spec.parameters.get("multi_label", False))
        self._output: str | None = spec.parameters.get("output")
        self._activation: str | None = spec.parameters.get("activation")
        self.options = OptionsReader(ClassifyOptions, spec).read

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]], geometry: Geometry, options: ClassifyOptions) -> Arrays:
        row = self._row(outputs)
        require_finite(row)
        scores = self._probabilities(row)
        require_scores(scores)
        if len(scores) == 1 and self._classes == 2:
            scores = np.concatenate((1.0 - scores, scores))
        classes = _best(scores, options.top)
        classes = classes[scores[classes] >= np.float32(options.confidence)]
        arrays: Arrays = {"scores": scores[classes], "classes": classes}
        if self._multi_label:
            arrays["multi_label"] = np.ones(1, np.uint8)
        return arrays

    def _probabilities(self, row: Floats) -> Floats:
        activation = self._activation or self._guess(row)
        if activation == "sigmoid":
            return sigmoid(row)
        return softmax(row) if activation == "softmax" else row

    def _guess(self, row: Floats) -> str:
        bounded = row.min() >= 0.0 and row.max() <= 1.0
        whole = self._multi_label or abs(float(row.sum(dtype=np.float64)) - 1.0) <= _SUM_TOLERANCE
        if bounded and whole:
            return "none"
        return "sigmoid" if self._multi_label else "softmax"

    def _row(self, outputs: Outputs) -> Floats:
        """The class scores: the output known from the trial, the one with as many numbers as names, or the only one."""
        rows = [array for array in outputs.values() if array.size == max(array.shape, default=1) > 0]
        if self._output is not None and self._output in outputs:
            rows = [outputs[self._output]]
        elif len(rows) > 1 and self._classes:
            rows = [array for array in rows if array.size == self._classes]
        if len(rows) != 1:
            raise InferError("expected one output with a score per class; name the classes, or serve it as task tensor")
        return as_float32(rows[0].reshape(-1))


def _best(scores: Floats, top: int) -> Ints:
    """Classes of the `top` highest scores, best first. Only those that can be among them are sorted."""
    places = np.arange(len(scores))
    if top < len(scores):
        places = np.flatnonzero(scores >= np.partition(scores, -top)[-top])
    return places[np.argsort(-scores[places], kind="stable")[:top]]
