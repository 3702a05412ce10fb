"""The outputs themselves, for models whose meaning is the client's business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from parallel_infer.model_spec import ModelSpec
from stages.geometry import Geometry
from stages.tasks import Arrays
from stages.tasks.options import NoOptions, OptionsReader, PictureOptions


class Tensors:
    """Every output under its own name, copied bit by bit. Infinities and NaN pass: here they may well be meant."""

    name: ClassVar[str] = "tensor"

    def __init__(self, spec: ModelSpec) -> None:
        kind: type[Any] = PictureOptions if spec.preprocess else NoOptions
        self.options = OptionsReader(kind, spec).read

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]], geometry: Geometry, options: Any) -> Arrays:
        return {name: np.array(output, order="C") for name, output in outputs.items()}
