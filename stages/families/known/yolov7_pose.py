"""YOLOv7's pose models, yolov7-face among them: YOLOv5's rows for one class, then its points with a confidence each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stages.families.evidence import anchors_of_yolov5
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Strength
from stages.families.known.yolov5 import YoloV5

_BEFORE = 6  # box, objectness and the one class
_NAMES = {5: "face", 17: "person"}  # by the number of points


def points_of(columns: int) -> int | None:
    """How many points rows of so many columns hold: x, y and a confidence each."""
    count, rest = divmod(columns - _BEFORE, 3)
    return count if count >= 1 and rest == 0 else None


def fits(facts: Facts, task: str) -> Fit | Misfit:
    name, shape = facts.only_of_rank(2) or ("", (0, 0))
    count = points_of(shape[1])
    if count is None or facts.nc not in (None, 1) or facts.kpt_shape not in (None, (count, 3)):
        return Misfit(f"found outputs {facts.shown}; expected [anchors, 6 + 3 x points]")
    because = f"{name} {list(shape)} is a box, its objectness, one class and {count} points"
    names = (_NAMES[count],) if count in _NAMES else ()
    return Fit(1, because, {"kpt_shape": [count, 3]}, names)


def claims(facts: Facts) -> Iterator[Claim]:
    """YOLOv5 with more classes has as many columns, but they are scores, where points are in pixels."""
    name, shape = facts.only_of_rank(2) or ("", (0, 0))
    count = points_of(shape[1])
    if count is None or not anchors_of_yolov5(facts, shape[0]) or facts.nc not in (None, 1):
        return
    points = facts.arrays[name][:, _BEFORE:].reshape(len(facts.arrays[name]), count, 3)
    far, sure = float(np.max(np.abs(points[..., :2]), initial=0.0)), points[..., 2]
    if far > 1.0 and 0.0 <= float(np.min(sure, initial=0.0)) <= float(np.max(sure, initial=0.0)) <= 1.0:
        evidence = (f"columns after the class reach {far:.0f} on a trial picture: points in pixels",)
        yield Claim(Strength.SHAPE, "keypoints", evidence)


FAMILY = Family(
    name="yolov7-pose",
    readers={"keypoints": YoloV5},
    fits=fits,
    claims=claims,
    needs_nms=True,
    export="python export.py --weights MODEL.pt --grid --dynamic",
)
