"""PaddleDetection: all objects in one output, class first, in pixels of the size that `scale_factor` tells."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Outputs, as_float32, main_output
from stages.families.evidence import TOLERANCE
from stages.families.facts import Facts
from stages.families.family import IMAGENET, Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.queries import ready
from stages.tasks.options import DetectOptions

SCALE, SHAPE = "scale_factor", "im_shape"


class PaddleDetection:
    """[n, 6]: class, score, xyxy in row pixels, because `scale_factor` is 1. Rows of the class -1 are none."""

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._output: str | None = spec.parameters.get("output")

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        rows = as_float32(main_output(outputs, self._output, 2))
        if rows.shape[1] != 6:
            raise InferError(f"expected rows of class, score and box, the model gave {list(rows.shape)}")
        scores = np.where(np.rint(rows[:, 0]) < 0, np.float32(0), rows[:, 1])
        return ready(rows[:, 2:], scores, rows[:, 0], options)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    tables = [name for name, shape in facts.outputs.items() if len(shape) == 2 and shape[1] == 6]
    if SCALE not in facts.inputs or len(tables) != 1:
        return Misfit(f"found outputs {facts.shown}; expected one [objects, 6], and an input {SCALE}")
    name = tables[0]
    for values in facts.trials(name):
        numbers, scores = np.asarray(values, np.float64)[:, 0], np.asarray(values, np.float64)[:, 1]
        strange = np.abs(numbers - np.rint(numbers)).max(initial=0.0) > TOLERANCE
        if strange or scores.max(initial=0.0) > 1.0 + TOLERANCE or numbers.max(initial=0.0) > (facts.nc or 2**31) - 1:
            return Misfit(f"found {name} with other numbers than class, score and box in each row")
    unused = tuple(other for other, shape in facts.outputs.items() if other != name and len(shape) > 1)
    because = f"an input {SCALE}, and {name} of class, score and box: PaddleDetection"
    return Fit(facts.nc or 0, because, {"output": name}, guessed=True, unused=unused)


def claims(facts: Facts) -> Iterator[Claim]:
    if SCALE in facts.inputs and facts.task in (None, "detect"):
        yield Claim(Strength.NAMES, "detect")


FAMILY = Family(
    name="paddle-detection",
    readers={"detect": PaddleDetection},
    fits=fits,
    claims=claims,
    recipe=Recipe("stretch", IMAGENET),
    export="paddle2onnx fixes nothing, but PaddleDetection's suppression joins the objects of all pictures: one by one",
)
