"""The YOLOv5 repository, YOLOv6 and YOLOv7: boxes, an objectness, and the classes of each anchor."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import (
    Candidates,
    Floats,
    Ints,
    Outputs,
    as_float32,
    corners,
    main_output,
    require_finite,
    strongest,
    wanted,
)
from stages.families.evidence import (
    ANCHORS,
    NO_METADATA,
    STRIDES,
    anchors_of_yolov5,
    fractions_of,
    objectness_rows,
    rows_of,
)
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Strength
from stages.families.queries import unit_of_boxes
from stages.tasks.options import DetectOptions


class YoloV5:
    """[anchors, 5 + classes + extra]: cxcywh in row pixels, objectness, scores; score = objectness x class score."""

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._extra = extra
        self._output: str | None = spec.parameters.get("output")
        self._unit = unit_of_boxes(spec)
        self.overlapping = not spec.parameters.get("nms", False)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        predictions = as_float32(main_output(outputs, self._output, 2))
        end = predictions.shape[1] - self._extra
        if end <= 5:
            raise InferError(f"expected more than {5 + self._extra} channels, the model gave {predictions.shape[1]}")
        confidence = np.float32(options.confidence)
        objectness = predictions[:, 4]
        require_finite(objectness)
        # class scores are at most 1, so whatever falls here would fall after the product
        index = np.flatnonzero(objectness > confidence)
        rows = predictions[index]
        scores = rows[:, 5:end] * rows[:, 4:5]
        best = scores.max(axis=1)
        require_finite(best)
        classes = scores.argmax(axis=1)
        chosen = best > confidence
        if options.class_filter is not None:
            chosen &= wanted(classes, options)
        order = strongest(best, np.flatnonzero(chosen), options.max_candidates)
        boxes = self._boxes(rows[order, :4] * self._unit, index[order], len(predictions))
        require_finite(boxes)
        return Candidates(boxes, best[order], classes[order], rows[order, end:], index[order])

    def _boxes(self, boxes: Floats, index: Ints, anchors: int) -> Floats:
        """Corners in row pixels of `boxes` [n, 4], whose places among all `anchors` are `index`."""
        return corners(boxes)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    """Three anchors for each cell, or one as YOLOv6 has, whose objectness is 1 everywhere."""
    fit = objectness_rows(facts, task)
    if isinstance(fit, Misfit):
        return fit
    name = fit.parameters["output"]
    rows = len(facts.arrays[name])
    far = fractions_of(facts, name, lambda values: values[:, :4])
    if facts.insisted:
        parameters = {**fit.parameters, "fractions": True} if far is not None else fit.parameters
        return msgspec.structs.replace(fit, parameters=parameters)
    if far is not None:
        return Misfit(f"found boxes up to {far:.2g} in {name}: fractions of the picture; expected pixels")
    if anchors_of_yolov5(facts, rows):
        return fit
    if rows in facts.counts(STRIDES, (*STRIDES, 64)) and all((array[:, 4] == 1).all() for array in facts.trials(name)):
        return fit
    return Misfit(f"found {rows} rows in {name}; expected {ANCHORS} for each cell, {ANCHORS * facts.cells(STRIDES)}")


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task is not None:
        yield Claim(Strength.TASK, facts.task, (facts.because,))
    elif rows_of(facts, "yolov5"):
        evidence = (NO_METADATA, "the number of rows is that of its anchors at this size")
        if facts.only_of_rank(3) is not None:
            yield Claim(Strength.SHAPE, "segment", evidence)
        yield Claim(Strength.SHAPE, "detect", evidence)


FAMILY = Family(
    name="yolov5",
    readers={"detect": YoloV5, "segment": YoloV5},
    fits=fits,
    claims=claims,
    needs_nms=True,
    export="python export.py --weights MODEL.pt --include onnx --dynamic",
)
