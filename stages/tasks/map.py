"""A number for each pixel of the picture: depth, saliency, heat, how unusual it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError, ModelRejected
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Floats, as_float32, require_finite
from stages.dense import Spread
from stages.geometry import Geometry
from stages.opencv import cv2
from stages.tasks import Arrays
from stages.tasks.options import MapOptions, OptionsReader

_STEPS = 65535  # of a PNG of 16 bits


class Map:
    """`map`, the model's numbers at the picture's size, or a PNG of them with their `range`.

    Models of anomalies give a number for the whole picture too: it is the only one in `scores`.
    """

    name: ClassVar[str] = "map"

    def __init__(self, spec: ModelSpec) -> None:
        self._output: str = spec.parameters["output"]
        self._score: str | None = spec.parameters.get("score")
        self._row: tuple[int, int] = (spec.preprocess["width"], spec.preprocess["height"])
        self.options = OptionsReader(MapOptions, spec).read
        if spec.preprocess["resize"] == "crop":
            raise ModelRejected(f"model {spec.name!r}: resize = crop shows it no more than a part of the picture")

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]], geometry: Geometry, options: MapOptions) -> Arrays:
        found = outputs.get(self._output)
        if found is None or found.ndim < 2 or found.size != np.prod(found.shape[-2:]) or not found.size:
            raise InferError(f"expected one number for each place in the output {self._output}")
        plane = np.ascontiguousarray(as_float32(found).reshape(found.shape[-2:]))
        require_finite(plane)
        spread = Spread(geometry, self._row, (plane.shape[1], plane.shape[0]))
        numbers = spread.covered(plane) if options.map_size == "model" else spread.smooth(plane)
        arrays = _png(numbers) if options.map_format == "png" else {"map": np.array(numbers, order="C")}
        return arrays | self._of_picture(outputs)

    def _of_picture(self, outputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        if self._score is None:
            return {}
        found = outputs.get(self._score)
        if found is None or found.size != 1:
            raise InferError(f"expected one number for the picture in the output {self._score}")
        score = as_float32(found).reshape(1)
        require_finite(score)
        return {"scores": np.array(score)}


def _png(numbers: Floats) -> Arrays:
    """Gray of 16 bits: 0 is the least number and 65535 the greatest; `range` holds both."""
    least, most = float(numbers.min()), float(numbers.max())
    steps = (numbers - least) * (_STEPS / (most - least)) if most > least else np.zeros_like(numbers)
    done, encoded = cv2.imencode(".png", np.rint(steps).astype(np.uint16))
    if not done:
        raise InferError("the map could not be written as PNG")
    return {"map_png": np.asarray(encoded, np.uint8).ravel(), "range": np.array([least, most], np.float32)}
