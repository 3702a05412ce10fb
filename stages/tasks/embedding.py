"""A picture as a vector of length 1, for looking up similar pictures: the dot product of two is their likeness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import as_float32, require_finite
from stages.geometry import Geometry
from stages.tasks import Arrays
from stages.tasks.options import OptionsReader, PictureOptions


class Embedding:
    """`embedding`, float32 [d]: the model's vector, or the first of its tokens, divided by its length."""

    name: ClassVar[str] = "embedding"

    def __init__(self, spec: ModelSpec) -> None:
        self._output: str = spec.parameters["output"]
        self.options = OptionsReader(PictureOptions, spec).read

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]], geometry: Geometry, options: PictureOptions) -> Arrays:
        found = outputs.get(self._output)
        if found is None or not found.size:
            raise InferError(f"expected a vector in the output {self._output}")
        tokens = found.reshape(-1, found.shape[-1]) if found.size != max(found.shape) else found.reshape(1, -1)
        vector = as_float32(tokens[0]).astype(np.float64)
        require_finite(vector)
        length = float(np.linalg.norm(vector))
        if length == 0.0:
            raise InferError("the model gave a vector of zeros, which has no direction")
        return {"embedding": (vector / length).astype(np.float32)}
