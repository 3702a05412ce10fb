"""YOLOv5u, v8, v9, 11 and 12 of Ultralytics, v10 and 26 exported without their end, and the shipped models."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import (
    Candidates,
    Floats,
    Outputs,
    as_float32,
    corners,
    main_output,
    require_finite,
    strongest,
    wanted,
)
from stages.families.evidence import (
    MOST_ROWS,
    NO_METADATA,
    STRIDES,
    Table,
    beyond,
    classes,
    fractions_of,
    plus,
    ready_task,
    table,
    unused,
)
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Strength
from stages.families.queries import unit_of_boxes
from stages.tasks.options import DetectOptions

ULTRALYTICS = "yolo export model=MODEL.pt format=onnx dynamic=True"


class YoloV8:
    """[4 + classes + extra, anchors]: cxcywh in row pixels, scores (sigmoid done, no objectness), extra."""

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._extra = extra
        self._output: str | None = spec.parameters.get("output")
        self._transposed: bool = spec.parameters.get("transposed", False)
        self._unit = unit_of_boxes(spec)
        self.overlapping = not spec.parameters.get("nms", False)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        predictions = as_float32(main_output(outputs, self._output, 2))
        if self._transposed:
            predictions = predictions.T
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
        boxes = self._boxes(columns[:4].T * self._unit)
        return Candidates(boxes, best[index], columns[4:end].argmax(axis=0), columns[end:].T, index)

    def _boxes(self, boxes: Floats) -> Floats:
        return corners(boxes)


class RotatedYoloV8(YoloV8):
    """The same with rotated boxes, which stay as centre, width and height; `extra` is the angle."""

    def _boxes(self, boxes: Floats) -> Floats:
        return boxes


_LEVELS = (STRIDES, (*STRIDES, 64), (4, *STRIDES), (16, 32))


def fits(facts: Facts, task: str) -> Fit | Misfit:
    """Channels first, or anchors first where that is what the number of names or of anchors says."""
    found = table(facts, task)
    if isinstance(found, Misfit):
        return found
    anchors = facts.counts(*_LEVELS)
    fit, transposed = _oriented(facts, found, anchors)
    if isinstance(fit, Misfit):
        return fit
    count = found.rows if transposed else found.columns
    known = count in anchors or facts.insisted or (facts.nc is not None and facts.task is not None)
    if not known or (not transposed and found.rows >= found.columns and facts.nc is None):
        expected = " or ".join(map(str, sorted(anchors)))
        return Misfit(f"found {found.shown}; expected {_layout(found)} of {expected} anchors at this size")
    wrong = beyond(facts, found.name, lambda values: (values.T if transposed else values)[4 : 4 + fit.nc])
    if wrong is not None:
        return Misfit(f"found {found.shown}; expected {_layout(found)}, but {wrong}")
    if count not in anchors and not transposed and _has_class_numbers(facts, found):
        return Misfit(
            f"found {found.shown}: its sixth channel has whole numbers only, as the classes of ready objects; expected "
            "scores"
        )
    far = fractions_of(facts, found.name, lambda values: (values.T if transposed else values)[:4])
    if far is not None and not facts.insisted:
        return Misfit(f"found {found.shown} with boxes up to {far:.2g}: fractions of the picture; expected pixels")
    angle = None if transposed else _angle(facts, found, task)
    if angle is not None:
        return Misfit(angle)
    parameters = {"output": found.name, "transposed": transposed, **({"fractions": True} if far is not None else {})}
    return msgspec.structs.replace(fit, parameters=parameters, unused=unused(facts, found, task))


def _has_class_numbers(facts: Facts, found: Table) -> bool:
    """Whether it is rather box, score and class of ready objects, turned: then no score is other than 0 and 1."""
    if facts.insisted or found.rows != 6 + found.extra or found.columns > MOST_ROWS:
        return False
    return all(bool(np.all(values[5] == np.rint(values[5]))) for values in facts.trials(found.name))


def _angle(facts: Facts, found: Table, task: str) -> str | None:
    """What speaks for the last of nameless classes being an angle: it is high everywhere in noise, and no other is."""
    if task != "detect" or facts.task is not None or facts.nc is not None or facts.insisted or found.rows < 6:
        return None
    for values in facts.trials(found.name):
        last, others = values[-1], values[4:-1].max(axis=0)
        if not np.median(last) > max(0.05, 5 * float(np.median(others))):
            return None
    shown = f"{found.shown}: its last channel is high all over a trial picture, where no other is"
    return f"found {shown}; an angle? set task = obb, or task = detect if it is a class"


def _oriented(facts: Facts, found: Table, anchors: set[int]) -> tuple[Fit | Misfit, bool]:
    """Whether there are columns for the classes, and whether anchors come first."""
    rest = 4 + found.extra
    usual = classes(facts, found.rows, rest, found.shown, _layout(found))
    if isinstance(usual, Fit) and (found.columns in anchors or found.rows not in anchors):
        return usual, False
    if (facts.nc is not None or facts.insisted) and found.rows in anchors:
        turned = classes(facts, found.columns, rest, found.shown, f"[anchors, 4 + classes{plus(found.extra)}]")
        if isinstance(turned, Fit):
            return turned, True
    if facts.task is not None and found.columns in anchors and rest < found.rows < found.columns:
        return Fit(found.rows - rest, f"{found.shown} is {_layout(found)}"), False  # a warning tells of the names
    return usual, False


def _layout(found: Table) -> str:
    return f"[4 + classes{plus(found.extra)}, anchors]"


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task is not None:
        yield Claim(Strength.TASK, facts.task, (facts.because,))
    elif ready_task(facts) is None:
        yield from _by_shape(facts)


def _by_shape(facts: Facts) -> Iterator[Claim]:
    if facts.only_of_rank(3) is not None:
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
