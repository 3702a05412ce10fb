"""TensorFlow's Object Detection API: ready objects, y before x, as fractions of the picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Outputs
from stages.families.facts import Facts
from stages.families.family import PIXELS, Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.queries import named_output, ready, row_size
from stages.tasks.options import DetectOptions

_BOXES, _SCORES, _CLASSES, _COUNT = "detection_boxes", "detection_scores", "detection_classes", "num_detections"


class TensorFlowDetection:
    """`detection_boxes` [k, 4] y, x, y, x as fractions, `detection_scores` [k], `detection_classes` [k] from 1 on."""

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._size = row_size(spec)
        self._first: int = spec.parameters.get("first_class", 1)
        names: dict[str, str] = spec.parameters.get("roles", {})
        self._names = [names.get(role, role) for role in (_BOXES, _SCORES, _CLASSES)]

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        boxes = named_output(outputs, self._names[0], 2)
        scores, given = (named_output(outputs, name, 1) for name in self._names[1:])
        if boxes.shape != (len(scores), 4) or len(given) != len(scores):
            raise InferError(f"expected {len(scores)} boxes and classes for as many scores")
        classes = np.rint(given) - self._first
        return ready(boxes[:, [1, 0, 3, 2]], scores, classes, options, self._size)


def _roles(facts: Facts) -> dict[str, str]:
    """The outputs by what they are; some exporters put a number behind the name."""
    return {
        role: name
        for role in (_BOXES, _SCORES, _CLASSES)
        for name in facts.outputs
        if name == role or name.startswith(f"{role}:")
    }


def fits(facts: Facts, task: str) -> Fit | Misfit:
    roles = _roles(facts)
    shapes = [facts.outputs.get(roles.get(role, ""), ()) for role in (_BOXES, _SCORES, _CLASSES)]
    boxes, scores, classes = shapes
    if len(boxes) != 2 or boxes[1] != 4 or len(scores) != 1 or classes != scores or boxes[0] != scores[0]:
        return Misfit(f"found outputs {facts.shown}; expected {_BOXES} [k, 4], {_SCORES} [k] and {_CLASSES} [k]")
    numbers = np.concatenate([values[facts.arrays[roles[_SCORES]] > 0] for values in facts.trials(roles[_CLASSES])])
    first = 0 if numbers.size and numbers.min() < 1 else 1
    counted = f", classes from {first} on"
    used = {*roles.values(), _COUNT}
    return Fit(
        facts.nc or 0,
        f"outputs {', '.join(roles.values())}: TensorFlow's Object Detection API{counted}",
        {"roles": roles, "first_class": first, "normalised": True},
        guessed=True,
        unused=tuple(name for name in facts.outputs if name.partition(":")[0] not in used and name not in used),
    )


def claims(facts: Facts) -> Iterator[Claim]:
    if len(_roles(facts)) == 3 and facts.task in (None, "detect"):
        yield Claim(Strength.NAMES, "detect")


FAMILY = Family(
    name="tensorflow-detection",
    readers={"detect": TensorFlowDetection},
    fits=fits,
    claims=claims,
    recipe=Recipe("stretch", PIXELS),
    export="python -m tf2onnx.convert --saved-model FOLDER --output MODEL.onnx  (of a model with an open batch)",
)
