"""Detectors of torchvision (Faster R-CNN, RetinaNet, SSD, FCOS): ready objects in pixels of the input."""

from __future__ import annotations

from collections.abc import Iterator

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Outputs
from stages.families.evidence import are_fractions, beyond, not_corners
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.queries import named_output, ready, unit_of_boxes
from stages.tasks.options import DetectOptions


class Torchvision:
    """`boxes` [n, 4] xyxy in row pixels or as fractions, `labels` [n], of which 0 is the background, `scores` [n]."""

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._unit = unit_of_boxes(spec)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        boxes = named_output(outputs, "boxes", 2)
        scores, labels = (named_output(outputs, name, 1) for name in ("scores", "labels"))
        if boxes.shape != (len(scores), 4) or len(labels) != len(scores):
            raise InferError(f"expected {len(scores)} boxes and labels for as many scores")
        return ready(boxes, scores, labels, options, self._unit)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    boxes, labels, scores = (facts.outputs.get(name, ()) for name in ("boxes", "labels", "scores"))
    if len(boxes) != 2 or boxes[1] != 4 or len(labels) != 1 or labels != scores or boxes[0] != scores[0]:
        return Misfit(f"found outputs {facts.shown}; expected boxes [n, 4], labels [n] and scores [n]")
    if facts.arrays["labels"].dtype.kind not in "iu":
        return Misfit("found labels that are no whole numbers; expected those of classes")
    wrong = beyond(facts, "scores", lambda values: values)
    wrong = wrong or not_corners(facts, "boxes", lambda outputs: outputs["scores"])
    if wrong is not None:
        return Misfit(wrong)
    unused = facts.besides("boxes", "labels", "scores")
    because = "outputs boxes, labels and scores of the same objects: torchvision"
    if not are_fractions(facts, "boxes"):
        return Fit(facts.nc or 0, because, guessed=True, unused=unused)
    doubt = "boxes are taken as xyxy in fractions of the picture, as a trial picture gave them"
    recipe = Recipe("stretch", filter="bilinear")
    parameters = {"normalised": True}
    return Fit(facts.nc or 0, because, parameters, guessed=True, unused=unused, recipe=recipe, warnings=(doubt,))


def claims(facts: Facts) -> Iterator[Claim]:
    if {"boxes", "labels", "scores"} <= set(facts.outputs) and facts.task in (None, "detect"):
        doubt = "classes are numbered as the model does, where 0 is mostly the background: so has names to be"
        yield Claim(Strength.NAMES, "detect", (), (doubt,) if facts.nc is not None else ())


FAMILY = Family(
    name="torchvision",
    readers={"detect": Torchvision},
    fits=fits,
    claims=claims,
    recipe=Recipe("letterbox-corner", filter="bilinear", pad=0),
    export="torchvision's detectors take one picture at a time",
)
