"""What each pixel of the picture shows: a class map, and how much of the picture each class covers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError, ModelRejected
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Floats, Ints, as_float32, require_finite
from stages.dense import Spread
from stages.geometry import Geometry
from stages.masks.rle import compress
from stages.opencv import cv2
from stages.tasks import Arrays
from stages.tasks.options import OptionsReader, SemanticOptions

_ALL = 8  # up to so many classes all are compared in every pixel
_MOST = 65536  # classes a map has room for
_MARGIN = 1.0  # below any logit

Labels = npt.NDArray[np.generic]


class Semantic:
    """`class_map`, or run lengths or a PNG of it, and `classes` with their `areas`, the largest first.

    From logits each is read at every pixel, bilinearly, and the greatest wins, as makers do
    (`post_process_semantic_segmentation` of Hugging Face); from a map of classes the nearest place counts. Classes that
    are among the two best at no place of the grid are left out of the comparison.
    """

    name: ClassVar[str] = "semantic"

    def __init__(self, spec: ModelSpec) -> None:
        self._output: str = spec.parameters["output"]
        self._last: bool = spec.parameters.get("channels_last", False)
        self._threshold: float | None = spec.parameters.get("threshold")
        self._row: tuple[int, int] = (spec.preprocess["width"], spec.preprocess["height"])
        self.options = OptionsReader(SemanticOptions, spec).read
        if spec.preprocess["resize"] == "crop":
            raise ModelRejected(f"model {spec.name!r}: resize = crop shows it no more than a part of the picture")

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]], geometry: Geometry, options: SemanticOptions) -> Arrays:
        labels = self._labels(self._planes(outputs), geometry)
        if options.class_filter is not None:
            numbers = np.array(options.class_filter, np.int64)
        else:
            numbers = np.arange(int(labels.max(initial=0)) + 1)
        counts = np.bincount(labels.ravel(), minlength=int(numbers.max()) + 1)[numbers]
        order = np.argsort(-counts, kind="stable")
        order = order[counts[order] > 0]
        arrays: Arrays = {"classes": numbers[order].astype(np.int64), "areas": counts[order].astype(np.int64)}
        return {**arrays, **_drawn(labels, arrays["classes"], options)}

    def _planes(self, outputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """[classes, h, w] logits, or [h, w] classes."""
        found = outputs.get(self._output)
        if found is None or found.ndim not in (2, 3) or not found.size:
            raise InferError(f"expected a map of classes or their logits in the output {self._output}")
        if found.ndim == 3 and self._last:
            found = found.transpose(2, 0, 1)
        return found[0] if found.ndim == 3 and found.dtype.kind in "iub" and len(found) == 1 else found

    def _labels(self, planes: npt.NDArray[Any], geometry: Geometry) -> Labels:
        spread = Spread(geometry, self._row, (planes.shape[-1], planes.shape[-2]))
        if planes.ndim == 2 and planes.dtype.kind in "iub":
            return spread.nearest(_classes(planes))
        logits = as_float32(planes)
        require_finite(logits)
        if logits.ndim == 2 or len(logits) == 1:
            threshold = 0.0 if self._threshold is None else self._threshold
            return (spread.smooth(np.ascontiguousarray(logits.reshape(logits.shape[-2:]))) > threshold).view(np.uint8)
        return _greatest(logits, spread)


def _classes(planes: npt.NDArray[Any]) -> Labels:
    if planes.dtype.kind != "b" and (int(planes.min()) < 0 or int(planes.max()) >= _MOST):
        raise InferError(f"the model gave the classes {planes.min()} to {planes.max()}; expected 0 to {_MOST - 1}")
    return planes.astype(np.uint8 if int(planes.max()) < 256 else np.uint16)


def _greatest(logits: Floats, spread: Spread) -> Labels:
    """The class of the greatest logit of each pixel; of equal ones the first."""
    width, height = spread.size
    labels = np.zeros((height, width), np.uint8 if len(logits) <= 256 else np.uint16)
    greatest = np.full((height, width), -np.inf, np.float32)
    for number in _contenders(logits).tolist():
        plane = spread.smooth(np.ascontiguousarray(logits[number]))
        better = plane > greatest
        labels[better] = number
        np.maximum(plane, greatest, out=greatest)
    return labels


def _contenders(logits: Floats) -> Ints:
    """Classes that are first or second somewhere on the grid, ascending."""
    if len(logits) <= _ALL:
        return np.arange(len(logits))
    first = logits.argmax(axis=0)
    rest = logits.copy()
    np.put_along_axis(rest, first[None], np.float32(logits.min()) - np.float32(_MARGIN), axis=0)
    return np.unique(np.concatenate((first, rest.argmax(axis=0))))


def _drawn(labels: Labels, classes: Ints, options: SemanticOptions) -> Arrays:
    if options.map_format == "png":
        done, encoded = cv2.imencode(".png", np.ascontiguousarray(labels))
        if not done:
            raise InferError("the class map could not be written as PNG")
        return {"class_map_png": np.asarray(encoded, np.uint8).ravel()}
    if options.map_format == "rle":
        columns = labels.T.ravel()
        text, sizes = compress([_runs(columns == number) for number in classes.tolist()])
        return {"mask_rle": text, "mask_rle_sizes": sizes}
    return {"class_map": labels}


def _runs(columns: npt.NDArray[np.bool_]) -> Ints:
    """Lengths of the runs outside and inside in turn, beginning outside."""
    edges = np.flatnonzero(np.diff(columns)) + 1
    counts = np.diff(edges, prepend=0, append=len(columns))
    return counts if not columns[0] else np.concatenate(([0], counts))
