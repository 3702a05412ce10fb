"""YOLOv5u, v8, v9, 11 and 12 of Ultralytics, v10 and 26 exported without their end, and the shipped models."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parallel_infer.errors import InferError
from parallel_infer.models import ModelSpec
from stages.candidates import (
    Candidates,
    Floats,
    Outputs,
    as_float32,
    corners,
    only_output,
    require_finite,
    strongest,
    wanted,
)
from stages.families.evidence import NO_METADATA, channels_first, classes, extra_columns, plus, table
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Strength
from stages.tasks.options import DetectOptions

ULTRALYTICS = "yolo export model=MODEL.pt format=onnx dynamic=True"


class YoloV8:
    """[4 + classes + extra, anchors]: cxcywh in row pixels, scores (sigmoid done, no objectness), extra."""

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._extra = extra
        self.overlapping = not spec.parameters.get("nms", False)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        predictions = as_float32(only_output(outputs, 2))
        end = len(predictions) - self._extra  # of the scores
        if end <= 4:
            raise InferError(f"expected more than {4 + self._extra} channels, the model gave {len(predictions)}")
        best = predictions[4:end].max(axis=0)
        require_finite(best)
        index = np.flatnonzero(best > np.float32(options.confidence))
        if options.class_filter is not None:
            index = index[wanted(predictions[4:end, index].argmax(axis=0), options)]
        index = strongest(best, index, options.max_candidates)
        columns = predictions[:, index]
        require_finite(columns[:4])
        boxes = self._boxes(columns[:4].T)
        return Candidates(boxes, best[index], columns[4:end].argmax(axis=0), columns[end:].T, index)

    def _boxes(self, boxes: Floats) -> Floats:
        return corners(boxes)


class RotatedYoloV8(YoloV8):
    """The same with rotated boxes, which stay as centre, width and height; `extra` is the angle."""

    def _boxes(self, boxes: Floats) -> Floats:
        return boxes


def fits(facts: Facts, task: str) -> Fit | Misfit:
    found = table(facts, task)
    if isinstance(found, Misfit):
        return found
    name, channels, anchors, extra = found
    if facts.nc is None and channels >= anchors:
        return Misfit(f"found {name} [{channels}, {anchors}]; expected [4 + classes, anchors], channels first")
    shown = f"{name} [{channels}, {anchors}]"
    return classes(facts, channels, 4 + extra, shown, f"[4 + classes{plus(extra)}, anchors]")


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task is not None:
        yield Claim(Strength.TASK, facts.task, (facts.because,))
    elif channels_first(facts):
        yield from _by_shape(facts)


def _by_shape(facts: Facts) -> Iterator[Claim]:
    found, prototypes = facts.only_of_rank(2), facts.only_of_rank(3)
    if found is not None and prototypes is not None and found[1][0] > 4 + (extra_columns(facts, "segment") or 0):
        masks = f"{NO_METADATA}: YOLOv8 segmentation; set task if it is not"
        yield Claim(Strength.SHAPE, "segment", (NO_METADATA,), (masks,))
    boxes = f"{NO_METADATA}: YOLOv8 detection; set task to keypoints or obb if that is what it does"
    yield Claim(Strength.SHAPE, "detect", (NO_METADATA,), (boxes,) if facts.nc is None else ())
    if facts.nc is not None:
        yield Claim(Strength.SHAPE, "obb", (NO_METADATA,))
        yield Claim(Strength.SHAPE, "keypoints", (NO_METADATA,))


FAMILY = Family(
    name="yolov8",
    readers={"detect": YoloV8, "segment": YoloV8, "keypoints": YoloV8, "obb": RotatedYoloV8},
    fits=fits,
    claims=claims,
    needs_nms=True,
    export=ULTRALYTICS,
)
