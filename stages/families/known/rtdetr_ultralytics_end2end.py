"""Newer RT-DETR exports of Ultralytics: a box as fractions, score and class for each query."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from parallel_infer.model_spec import ModelSpec
from stages.candidates import Floats, corners
from stages.families.evidence import ENOUGH_BOXES, FRACTIONS, reach, ready_objects, ready_task
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.known.end2end import HINT, EndToEnd
from stages.families.known.rtdetr_ultralytics import is_rtdetr
from stages.families.known.yolov8 import ULTRALYTICS
from stages.families.queries import row_size


class RtDetrUltralyticsEndToEnd(EndToEnd):
    """[q, 6]: cxcywh normalised to the row, score, class."""

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        super().__init__(spec, extra)
        self._size = row_size(spec)

    def _boxes(self, boxes: Floats) -> Floats:
        return corners(boxes * self._size)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    fit = ready_objects(facts, task)
    if isinstance(fit, Misfit):
        return fit
    if _are_corners(facts, fit.parameters["output"]):
        return Misfit("found boxes that all end right of and below where they begin: xyxy; expected cxcywh")
    return msgspec.structs.replace(fit, parameters={**fit.parameters, "normalised": True})


def _are_corners(facts: Facts, name: str) -> bool:
    """Whether all boxes of all trial pictures could be xyxy: of cxcywh few are wider than their centre is far right.

    A few boxes may all be so by chance; that counts for something only where metadata names the model.
    """
    rows = np.unique(np.concatenate([values[values[:, 4] > 0, :4] for values in facts.trials(name)]), axis=0)
    ordered = (rows[:, 2] >= rows[:, 0]) & (rows[:, 3] >= rows[:, 1])
    enough = ENOUGH_BOXES if is_rtdetr(facts.metadata) else 1
    return not facts.insisted and len(rows) >= enough and bool(np.all(ordered))


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task == "detect" and is_rtdetr(facts.metadata):
        yield Claim(Strength.SAID, "detect", (facts.because, "metadata names an RT-DETR"))
    far = reach(facts)
    if "detect" in (facts.task, ready_task(facts) if facts.task is None else None) and 0.0 < far <= FRACTIONS:
        why = f"a trial picture gave boxes up to {far:.2f}: fractions of the picture, cxcywh"
        evidence = (why,) if facts.task is None else (facts.because, why)
        strength = Strength.SHAPE if facts.task is None else Strength.GUESS
        yield Claim(strength, "detect", evidence, (f"boxes are taken as 0..1, cxcywh; {HINT}",))


FAMILY = Family(
    name="rtdetr-ultralytics-end2end",
    readers={"detect": RtDetrUltralyticsEndToEnd},
    fits=fits,
    claims=claims,
    recipe=Recipe("stretch"),
    export=ULTRALYTICS,
)
