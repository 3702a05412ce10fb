"""Objects as boxes and keypoints, such as the joints of persons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import ModelRejected
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Floats, require_finite
from stages.families import layout_for
from stages.geometry import Geometry
from stages.nms import find
from stages.tasks import Arrays
from stages.tasks.boxes import boxes_in_frame
from stages.tasks.options import DetectOptions, OptionsReader


class Keypoints:
    """Boxes, scores and classes as detection gives them, and the keypoints of each object, none beyond the picture.

    `kpt_shape` of the model's parameters is (keypoints, numbers each): x, y in row pixels and, with three numbers, a
    confidence. With two the confidence is 1.
    """

    name: ClassVar[str] = "keypoints"

    def __init__(self, spec: ModelSpec) -> None:
        self._shape = _keypoint_shape(spec)
        self._layout = layout_for(spec, self._shape[0] * self._shape[1])
        self.options = OptionsReader(DetectOptions, spec).read

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]], geometry: Geometry, options: DetectOptions) -> Arrays:
        found, boxes = boxes_in_frame(find(self._layout, outputs, options), geometry)
        require_finite(found.extra)
        return {
            "boxes": boxes,
            "scores": np.array(found.scores),
            "classes": found.classes,
            "keypoints": self._keypoints(found.extra, geometry),
        }

    def _keypoints(self, extra: Floats, geometry: Geometry) -> Floats:
        read = extra.reshape(len(extra), *self._shape)
        keypoints = np.ones((len(extra), self._shape[0], 3), np.float32)
        keypoints[:, :, :2] = geometry.clip(geometry.points_to_frame(read[:, :, :2]))
        if self._shape[1] == 3:
            keypoints[:, :, 2] = read[:, :, 2]
        return keypoints


def _keypoint_shape(spec: ModelSpec) -> tuple[int, int]:
    count, numbers = spec.parameters.get("kpt_shape", (17, 3))
    if count < 1 or numbers not in (2, 3):
        raise ModelRejected(f"model {spec.name!r}: kpt_shape {[count, numbers]} is not [keypoints, 2 or 3]")
    return int(count), int(numbers)
