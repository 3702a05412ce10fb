"""Ready objects: YOLOv10 and 26 exported end to end, and Ultralytics exports with `nms=True`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Floats, Outputs, as_float32, main_output, require_finite
from stages.families.evidence import FRACTIONS, not_corners, reach, ready_objects, ready_task
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Strength
from stages.families.known.yolov8 import ULTRALYTICS
from stages.families.queries import require_classes, select
from stages.tasks.options import DetectOptions

HINT = "set family to end2end or rtdetr-ultralytics-end2end if the boxes are wrong"


class EndToEnd:
    """[k, 6 + extra]: box, score, class, extra. Boxes are xyxy in row pixels; unused rows have the score 0."""

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._width = 6 + extra
        self._output: str | None = spec.parameters.get("output")

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        rows = as_float32(main_output(outputs, self._output, 2))
        if rows.shape[1] != self._width:
            raise InferError(f"expected rows of {self._width} numbers, the model gave {rows.shape[1]}")
        with np.errstate(invalid="ignore"):  # unused rows may hold anything
            classes = np.rint(rows[:, 5]).astype(np.int64)
        index = select(rows[:, 4], classes, options)
        require_finite(rows[index, 5])
        require_classes(classes[index])
        boxes = self._boxes(rows[index, :4])
        require_finite(boxes)
        return Candidates(boxes, rows[index, 4], classes[index], rows[index, 6:], index)

    def _boxes(self, boxes: Floats) -> Floats:
        return boxes


class RotatedEndToEnd(EndToEnd):
    """[k, 7]: centre x, centre y, width, height in row pixels, score, class, angle.

    Ultralytics joins box, score, class and then the angle; its `OBBPredictor.construct_result` reads them so.
    """


def fits(facts: Facts, task: str) -> Fit | Misfit:
    """Ready objects whose boxes are xyxy, but for rotated ones."""
    fit = ready_objects(facts, task)
    if isinstance(fit, Misfit) or task == "obb":
        return fit
    name: str = fit.parameters["output"]
    wrong = not_corners(facts, name, lambda outputs: outputs[name][:, 4])
    if wrong is not None:
        return Misfit(f"found boxes in {name} that are no xyxy: {wrong}")
    boxes = np.concatenate([values[values[:, 4] > 0, :4] for values in facts.trials(name)])
    if not facts.insisted and 0.0 < float(np.max(np.abs(boxes), initial=0.0)) <= FRACTIONS:  # one says it: no pixel
        return Misfit(f"found boxes in {name} that are fractions of the picture; expected pixels")
    return fit


def claims(facts: Facts) -> Iterator[Claim]:
    """Where metadata says so; else by shape, with pixels unless the noise picture's boxes say otherwise."""
    task = facts.task
    if task is not None and (facts.metadata.nms or facts.metadata.end2end):
        flag = "nms" if facts.metadata.nms else "end2end"
        yield Claim(Strength.SAID, task, (facts.because, f"metadata says {flag}: objects come out ready"))
    if task is not None:
        contradiction = "; metadata says end2end False" if facts.metadata.end2end is False else ""
        yield _guess(facts, Strength.GUESS, task, contradiction)
    elif (ready := ready_task(facts)) is not None:
        yield _guess(facts, Strength.SHAPE, ready, "")


def _guess(facts: Facts, strength: Strength, task: str, contradiction: str) -> Claim:
    boxes, far = "cxcywh with angle" if task == "obb" else "xyxy", reach(facts)
    why = f"a trial picture gave boxes up to {far:.0f}: pixels" if far else "a trial picture gave no objects"
    evidence = (why,) if facts.task is None else (facts.because, why)
    return Claim(strength, task, evidence, (f"boxes are taken as pixels, {boxes}; {HINT}{contradiction}",))


FAMILY = Family(
    name="end2end",
    readers={"detect": EndToEnd, "segment": EndToEnd, "keypoints": EndToEnd, "obb": RotatedEndToEnd},
    fits=fits,
    claims=claims,
    export=ULTRALYTICS,
)
