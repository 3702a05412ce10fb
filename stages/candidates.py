"""Objects of one picture as every family gives them, and what its readers share.

Whatever the family, `candidates` come out alike: only those above the confidence, best first, boxes in row pixels.
The cut comes before anything is transposed or copied, because of thousands of boxes a few survive it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError
from stages.tasks.options import DetectOptions

_TOLERANCE = 1e-2  # of scores that went through float16 or 8-bit integers

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Outputs = Mapping[str, npt.NDArray[Any]]


class Candidates(NamedTuple):
    """Objects of one picture, best first: by score, then by place in the output."""

    boxes: Floats  # [n, 4] xyxy in row pixels; of rotated boxes: centre x, centre y, width, height
    scores: Floats  # [n]
    classes: Ints  # [n]
    extra: Floats  # [n, e] mask coefficients, keypoints or the angle; e = 0 where the task has none
    places: Ints  # [n] where in the output, to find masks by

    def take(self, kept: Ints) -> Candidates:
        """The candidates at `kept`."""
        return self._each(lambda array: array[kept])

    def first(self, limit: int) -> Candidates:
        """The best `limit` of them, as views."""
        return self._each(lambda array: array[:limit])

    def _each(self, pick: Callable[[Any], Any]) -> Candidates:
        return Candidates(pick(self.boxes), pick(self.scores), pick(self.classes), pick(self.extra), pick(self.places))


class Layout(Protocol):
    """Reads the outputs of one family."""

    overlapping: bool  # whether one object may have many boxes, so that suppression is needed

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        """The candidates above the confidence and of the wanted classes, at most `max_candidates`.

        Raises InferError where a score or a box in use is not finite, or a shape is not the family's.
        """


def as_float32(array: npt.NDArray[Any]) -> Floats:
    """`array` as float32, not copied if it is already."""
    return array.astype(np.float32, copy=False)


def require_finite(*arrays: npt.NDArray[Any]) -> None:
    """Raise InferError where anything is NaN or infinite: such a model is broken, and an answer would hide it."""
    for array in arrays:
        if not np.isfinite(array).all():
            raise InferError("the model gave non-finite output (NaN or infinity); check its precision and its weights")


def require_scores(scores: Floats) -> None:
    """Raise InferError where a number is no score, 0 to 1: the outputs are not what they were taken for."""
    if scores.size and not (scores.min() >= -_TOLERANCE and scores.max() <= 1.0 + _TOLERANCE):
        worst = float(scores.max()) if not scores.max() <= 1.0 + _TOLERANCE else float(scores.min())
        raise InferError(
            f"the model gave the score {worst:.4g}, and scores are 0 to 1: its outputs are not what they are taken "
            "for, or its pictures are not prepared as it wants (set family, task, mean and std)"
        )


def strongest(scores: Floats, places: Ints, limit: int) -> Ints:
    """The at most `limit` of `places` with the highest `scores`, best first; equal scores stay in order."""
    return places[np.argsort(-scores[places], kind="stable")[:limit]]


def corners(boxes: Floats) -> Floats:
    """Boxes [n, 4] from centre x, centre y, width, height to xyxy, as a new array."""
    half = boxes[:, 2:] * np.float32(0.5)
    return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)


def wanted(classes: Ints, options: DetectOptions) -> npt.NDArray[np.bool_]:
    """Which of `classes` the request asked for; call it only where it named some."""
    return np.isin(classes, np.array(options.class_filter, np.int64))


def main_output(outputs: Outputs, name: str | None, rank: int) -> npt.NDArray[Any]:
    """The output of that name, or where none is known the only one of that rank. Raises InferError."""
    if name is None or name not in outputs:
        return only_output(outputs, rank)
    if outputs[name].ndim != rank:
        raise InferError(f"expected {rank} dimensions in {name}, the model gave {list(outputs[name].shape)}")
    return outputs[name]


def only_output(outputs: Outputs, rank: int) -> npt.NDArray[Any]:
    """The one output of that rank, whatever its name. Raises InferError unless there is exactly one."""
    found = [array for array in outputs.values() if array.ndim == rank]
    if len(found) != 1:
        shapes = ", ".join(str(list(array.shape)) for array in outputs.values())
        raise InferError(f"expected one output of {rank} dimensions (without the batch), the model gave {shapes}")
    return found[0]
