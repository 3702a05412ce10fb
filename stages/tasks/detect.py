"""Objects as boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from parallel_infer.model_spec import ModelSpec
from stages.families import layout_for
from stages.geometry import Geometry
from stages.nms import find
from stages.tasks import Arrays
from stages.tasks.boxes import boxes_in_frame
from stages.tasks.options import DetectOptions, OptionsReader


class Detect:
    """Boxes, scores and classes, best first; boxes as `boxes_in_frame` gives them."""

    name: ClassVar[str] = "detect"

    def __init__(self, spec: ModelSpec) -> None:
        self._layout = layout_for(spec)
        self.options = OptionsReader(DetectOptions, spec).read

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]], geometry: Geometry, options: DetectOptions) -> Arrays:
        found, boxes = boxes_in_frame(find(self._layout, outputs, options), geometry)
        return {
            "boxes": boxes,
            "scores": np.array(found.scores),
            "classes": found.classes,
        }
