"""Objects as rotated boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from parallel_infer.model_spec import ModelSpec
from stages.candidates import Floats, corners
from stages.families import layout_for
from stages.geometry import Geometry
from stages.nms import find_rotated
from stages.tasks import Arrays
from stages.tasks.options import DetectOptions, OptionsReader

_QUARTER = math.pi / 2


class OrientedBoxes:
    """Boxes, scores, classes and angles, best first.

    An angle is in radians from the x axis towards the y axis (clockwise on the screen), from 0 to a quarter turn;
    the box is the one to turn by it about its own centre.
    """

    name: ClassVar[str] = "obb"

    def __init__(self, spec: ModelSpec) -> None:
        self._layout = layout_for(spec, 1)
        self.options = OptionsReader(DetectOptions, spec).read

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]], geometry: Geometry, options: DetectOptions) -> Arrays:
        found = find_rotated(self._layout, outputs, options)
        boxes, angles = geometry.rotated_to_frame(found.boxes, found.extra[:, 0])
        boxes, angles = within_quarter(boxes, angles)
        return {
            "boxes": corners(boxes),
            "scores": np.array(found.scores),
            "classes": found.classes,
            "angles": angles,
        }


def within_quarter(boxes: Floats, angles: Floats) -> tuple[Floats, Floats]:
    """The same rotated boxes with angles from 0 to a quarter turn, width and height swapped where that takes it.

    This is the range Ultralytics answers in (`regularize_rboxes` in its ops).
    """
    precise = angles.astype(np.float64)
    swap = np.floor(precise / _QUARTER) % 2 == 1
    boxes = boxes.copy()
    boxes[swap, 2:] = boxes[swap, 3:1:-1]
    return boxes, (precise % _QUARTER).astype(np.float32)
