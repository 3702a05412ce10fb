"""yolov5-face: YOLOv5's rows with the five points of a face before its class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Outputs
from stages.families.evidence import anchors_of_yolov5
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Strength
from stages.families.known.scrfd import POINTS
from stages.families.known.yolov5 import YoloV5
from stages.tasks.options import DetectOptions

_COLUMNS = 5 + 2 * POINTS + 1


class YoloV5Face(YoloV5):
    """[anchors, 16]: cxcywh in row pixels, objectness, x and y of five points, score; score = objectness x score."""

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        return super().candidates({name: _points_last(array) for name, array in outputs.items()}, options)


class _Detector(YoloV5Face):
    """The same without its points."""

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        super().__init__(spec, 2 * POINTS)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        found = super().candidates(outputs, options)
        return found._replace(extra=found.extra[:, :0])


def _points_last(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if rows.ndim != 2 or rows.shape[1] != _COLUMNS:
        return rows
    return np.concatenate((rows[:, :5], rows[:, -1:], rows[:, 5:-1]), axis=1)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    name, shape = facts.only_of_rank(2) or ("", (0, 0))
    if shape[1] != _COLUMNS or facts.nc not in (None, 1):
        return Misfit(f"found outputs {facts.shown}; expected [anchors, {_COLUMNS}]")
    parameters = {"kpt_shape": [POINTS, 2]} if task == "keypoints" else {}
    because = f"{name} {list(shape)} is a box, its objectness, {POINTS} points and the score of a face"
    return Fit(1, because, parameters, ("face",))


def claims(facts: Facts) -> Iterator[Claim]:
    """YOLOv5 with 11 classes has 16 columns too, but its columns are scores, where points are in pixels."""
    name, shape = facts.only_of_rank(2) or ("", (0, 0))
    if shape[1] != _COLUMNS or not anchors_of_yolov5(facts, shape[0]) or facts.nc not in (None, 1):
        return
    far = float(np.max(np.abs(facts.arrays[name][:, 5:-1]), initial=0.0))
    if far > 1.0:
        evidence = (f"columns 5 to 14 reach {far:.0f} on a trial picture: points in pixels, and no class scores",)
        yield Claim(Strength.SHAPE, "keypoints", evidence)


FAMILY = Family(
    name="yolov5-face",
    readers={"keypoints": YoloV5Face, "detect": _Detector},
    fits=fits,
    claims=claims,
    needs_nms=True,
    export="python export.py --weights MODEL.pt --dynamic",
)
