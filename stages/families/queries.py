"""Reading outputs of one row per object: of models exported end to end, and of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import (
    Candidates,
    Floats,
    Ints,
    Outputs,
    as_float32,
    corners,
    require_finite,
    strongest,
    wanted,
)
from stages.tasks.options import DetectOptions


def row_size(spec: ModelSpec) -> Floats:
    """Factors from normalised coordinates to row pixels, for boxes [n, 4]."""
    width, height = spec.preprocess["width"], spec.preprocess["height"]
    return np.array([width, height, width, height], np.float32)


def unit_of_boxes(spec: ModelSpec) -> Floats:
    """What to multiply the four numbers of boxes with, float32 [4], to have row pixels: the row's sides or ones."""
    is_fraction = spec.parameters.get("normalised") or spec.parameters.get("fractions")
    return row_size(spec) if is_fraction else np.ones(4, np.float32)


def select(scores: Floats, classes: Ints, options: DetectOptions) -> Ints:
    """Places of the scores above the confidence and of wanted classes, best first."""
    require_finite(scores)
    chosen = scores > np.float32(options.confidence)
    if options.class_filter is not None:
        chosen &= wanted(classes, options)
    return strongest(scores, np.flatnonzero(chosen), options.max_candidates)


def ready(
    boxes: Floats, scores: Floats, classes: npt.NDArray[Any], options: DetectOptions, unit: Floats | None = None
) -> Candidates:
    """The candidates among objects that came ready: boxes [n, 4] xyxy, to be multiplied with `unit`.

    Raises InferError where a score or a class is no number, or those of a candidate cannot be.
    """
    require_finite(classes)
    numbers = np.rint(classes).astype(np.int64)
    index = select(scores, numbers, options)
    require_classes(numbers[index])
    found = boxes[index] if unit is None else boxes[index] * unit
    require_finite(found)
    return Candidates(found, scores[index], numbers[index], boxes[index, :0], index)


def best_pairs(boxes: Floats, scores: Floats, options: DetectOptions) -> Candidates:
    """The best of all pairs of a query and a class: boxes [q, 4] cxcywh in row pixels, scores [q, classes]."""
    flat = scores.reshape(-1)
    chosen = flat > np.float32(options.confidence)
    if options.class_filter is not None:
        chosen &= np.tile(wanted(np.arange(scores.shape[1]), options), len(scores))
    pairs = strongest(flat, np.flatnonzero(chosen), options.max_candidates)
    index, classes = np.divmod(pairs, scores.shape[1])
    found = corners(boxes[index])
    require_finite(found)
    return Candidates(found, flat[pairs], classes, boxes[index, :0], index)


def best_classes(boxes: Floats, scores: Floats, options: DetectOptions) -> Candidates:
    """The best class of each query alone: boxes [q, 4] cxcywh in row pixels, scores [q, classes]."""
    index, best, classes = best_of_rows(scores, options)
    found = corners(boxes[index])
    require_finite(found)
    return Candidates(found, best, classes, boxes[index, :0], index)


def require_classes(classes: Ints) -> None:
    """Raise InferError where a class number that the model itself gave cannot be one."""
    if ((classes < 0) | (classes >= 2**31)).any():
        raise InferError(f"the model gave the class number {classes.min()} or {classes.max()}")


def boxes_and_logits(outputs: Outputs, names: tuple[str, str]) -> tuple[Floats, Floats]:
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


def best_of_rows(scores: Floats, options: DetectOptions) -> tuple[Ints, Floats, Ints]:
    """The rows of `scores` [n, c] whose best class is above the confidence and wanted, best first.

    Their places, and the score and class of each.
    """
    best = scores.max(axis=1)
    require_finite(best)
    index = np.flatnonzero(best > np.float32(options.confidence))
    classes = scores[index].argmax(axis=1)
    if options.class_filter is not None:
        chosen = wanted(classes, options)
        index, classes = index[chosen], classes[chosen]
    order = strongest(best[index], np.arange(len(index)), options.max_candidates)
    return index[order], best[index[order]], classes[order]


def named_output(outputs: Outputs, name: str, rank: int) -> Floats:
    """The output of that name as float32. Raises InferError where it is missing or of another rank."""
    array = outputs.get(name)
    if array is None or array.ndim != rank:
        found = "none" if array is None else str(list(array.shape))
        raise InferError(f"expected the output {name} of {rank} dimensions (without the batch), the model gave {found}")
    return as_float32(array)
