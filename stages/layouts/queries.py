"""Outputs of models that need no suppression: exported end to end, or transformers with one object per query."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError
from parallel_infer.models import ModelSpec
from stages.layouts import (
    Candidates,
    Floats,
    Ints,
    Outputs,
    as_float32,
    corners,
    only_output,
    require_finite,
    strongest,
    wanted,
)
from stages.tasks.options import DetectOptions


def _row_size(spec: ModelSpec) -> Floats:
    """Factors from normalised coordinates to row pixels, for boxes [n, 4]."""
    width, height = spec.preprocess["width"], spec.preprocess["height"]
    return np.array([width, height, width, height], np.float32)


def _select(scores: Floats, classes: Ints, options: DetectOptions) -> Ints:
    """Places of the scores above the confidence and of wanted classes, best first."""
    require_finite(scores)
    chosen = scores > np.float32(options.confidence)
    if options.class_filter is not None:
        chosen &= wanted(classes, options)
    return strongest(scores, np.flatnonzero(chosen), options.max_candidates)


def _require_classes(classes: Ints) -> None:
    """Raise InferError where a class number that the model itself gave cannot be one."""
    if ((classes < 0) | (classes >= 2**31)).any():
        raise InferError(f"the model gave the class number {classes.min()} or {classes.max()}")


class EndToEnd:
    """[k, 6 + extra]: box, score, class, extra. Boxes are xyxy in row pixels; unused rows have the score 0.

    YOLOv10 and 26 exported end to end, and Ultralytics exports with `nms=True`.
    """

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._width = 6 + extra

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        rows = as_float32(only_output(outputs, 2))
        if rows.shape[1] != self._width:
            raise InferError(f"expected rows of {self._width} numbers, the model gave {rows.shape[1]}")
        with np.errstate(invalid="ignore"):  # unused rows may hold anything
            classes = np.rint(rows[:, 5]).astype(np.int64)
        index = _select(rows[:, 4], classes, options)
        require_finite(rows[index, 5])
        _require_classes(classes[index])
        boxes = self._boxes(rows[index, :4])
        require_finite(boxes)
        return Candidates(boxes, rows[index, 4], classes[index], rows[index, 6:], index)

    def _boxes(self, boxes: Floats) -> Floats:
        return boxes


class RotatedEndToEnd(EndToEnd):
    """[k, 7]: centre x, centre y, width, height in row pixels, score, class, angle.

    Ultralytics joins box, score, class and then the angle; its `OBBPredictor.construct_result` reads them so.
    """


class RtDetrUltralyticsEndToEnd(EndToEnd):
    """[q, 6]: cxcywh normalised to the row, score, class."""

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        super().__init__(spec, extra)
        self._size = _row_size(spec)

    def _boxes(self, boxes: Floats) -> Floats:
        return corners(boxes * self._size)


class RtDetrUltralytics:
    """[q, 4 + classes]: cxcywh normalised to the row, scores (sigmoid done); the best class of each query."""

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._size = _row_size(spec)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        rows = as_float32(only_output(outputs, 2))
        if rows.shape[1] <= 4:
            raise InferError(f"expected rows of more than 4 numbers, the model gave {rows.shape[1]}")
        best, classes = rows[:, 4:].max(axis=1), rows[:, 4:].argmax(axis=1)
        index = _select(best, classes, options)
        boxes = corners(rows[index, :4] * self._size)
        require_finite(boxes)
        return Candidates(boxes, best[index], classes[index], rows[index, :0], index)


class RtDetr:
    """`labels` [q] integers, `boxes` [q, 4] xyxy in row pixels, `scores` [q]: RT-DETR and D-FINE as published."""

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        pass

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        boxes = as_float32(only_output(outputs, 2))
        flat = [array for array in outputs.values() if array.ndim == 1]
        labels = [array for array in flat if array.dtype.kind in "iu"]
        scores = [array for array in flat if array.dtype.kind == "f"]
        if len(labels) != 1 or len(scores) != 1:
            raise InferError("expected one output of integer labels and one of scores")
        classes, best = labels[0].astype(np.int64), as_float32(scores[0])
        index = _select(best, classes, options)
        _require_classes(classes[index])
        require_finite(boxes[index])
        return Candidates(boxes[index], best[index], classes[index], boxes[index, :0], index)


class RfDetr:
    """`dets` [q, 4] cxcywh normalised, `labels` [q, c] logits: a sigmoid per class, the best of all q x c pairs.

    A query may appear with two classes, as in the published post-processing. `background`, a slot of some
    checkpoints that means nothing, is never an answer. `masks` [q, h, w] belong to the queries by their index.
    """

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._size = _row_size(spec)
        self._background: int | None = spec.parameters.get("background")

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        dets, logits = _boxes_and_logits(outputs, ("dets", "labels"))
        require_finite(logits)
        scores = sigmoid(logits)
        slots = scores.shape[1]
        scores[:, self._unwanted(slots, options)] = 0.0  # never above a confidence
        flat = scores.reshape(-1)
        pairs = strongest(flat, np.flatnonzero(flat > np.float32(options.confidence)), options.max_candidates)
        index, classes = np.divmod(pairs, slots)
        boxes = corners(dets[index] * self._size)
        require_finite(boxes)
        return Candidates(boxes, flat[pairs], classes, dets[index, :0], index)

    def _unwanted(self, slots: int, options: DetectOptions) -> npt.NDArray[np.bool_]:
        classes = np.arange(slots)
        unwanted: npt.NDArray[np.bool_] = classes == (-1 if self._background is None else self._background % slots)
        if options.class_filter is not None:
            unwanted |= ~wanted(classes, options)
        return unwanted


class Detr:
    """`logits` [q, classes + 1], `pred_boxes` [q, 4] cxcywh normalised: softmax, the last slot means no object."""

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._size = _row_size(spec)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        predicted, logits = _boxes_and_logits(outputs, ("pred_boxes", "logits"))
        require_finite(logits)
        scores = softmax(logits)[:, :-1]
        best, classes = scores.max(axis=1), scores.argmax(axis=1)
        index = _select(best, classes, options)
        boxes = corners(predicted[index] * self._size)
        require_finite(boxes)
        return Candidates(boxes, best[index], classes[index], predicted[index, :0], index)


def _boxes_and_logits(outputs: Outputs, names: tuple[str, str]) -> tuple[Floats, Floats]:
    """The two 2-D outputs, by their usual names or else by the 4 columns that boxes have."""
    if all(name in outputs for name in names):
        boxes, logits = (outputs[name] for name in names)
    else:
        flat = [array for array in outputs.values() if array.ndim == 2]
        if len(flat) != 2 or sum(array.shape[1] == 4 for array in flat) != 1:
            raise InferError(f"expected the outputs {names[0]} [q, 4] and {names[1]} [q, c]")
        boxes, logits = sorted(flat, key=lambda array: array.shape[1] != 4)
    if boxes.shape != (len(logits), 4) or logits.ndim != 2:
        raise InferError(f"expected the outputs {names[0]} [q, 4] and {names[1]} [q, c]")
    return as_float32(boxes), as_float32(logits)


def sigmoid(logits: Floats) -> Floats:
    with np.errstate(over="ignore"):  # exp(-x) overflows to infinity, whose reciprocal is the right 0
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), np.float32)


def softmax(logits: npt.NDArray[Any]) -> Floats:
    """Softmax over the last axis, float32, stable for large values."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)
