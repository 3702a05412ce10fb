"""Objects of all pictures in one output, each row with its picture's number: YOLOv7 end to end, YOLO-NAS' flat format.

The graph runs one picture at a time, so the number is always 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Outputs, as_float32, main_output
from stages.families.evidence import TOLERANCE
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Strength
from stages.families.queries import ready
from stages.tasks.options import DetectOptions

_V7, _NAS = (5, 6), (6, 5)  # columns of class and score


class Numbered:
    """[n, 7]: picture, xyxy in row pixels, then class and score (YOLOv7), or score and class (YOLO-NAS)."""

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._output: str | None = spec.parameters.get("output")
        self._class, self._score = spec.parameters.get("columns", _V7)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        rows = as_float32(main_output(outputs, self._output, 2))
        if rows.shape[1] != 7:
            raise InferError(f"expected rows of 7 numbers, the model gave {list(rows.shape)}")
        return ready(rows[:, 1:5], rows[:, self._score], rows[:, self._class], options)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    tables = [name for name, shape in facts.outputs.items() if len(shape) == 2 and shape[1] == 7]
    if len(tables) != 1:
        return Misfit(f"found outputs {facts.shown}; expected one [objects, 7]")
    name = tables[0]
    trials = [np.asarray(values, np.float64) for values in facts.trials(name)]
    if not facts.insisted and any(values[:, 0].any() for values in trials):
        return Misfit(f"found other numbers than 0 in the first column of {name}; expected that of the picture")
    fitting = [columns for columns in (_V7, _NAS) if all(_agree(values, *columns, facts.nc) for values in trials)]
    if not fitting:
        return Misfit(
            f"found no column of whole numbers and one of 0 to 1 at the end of {name}; expected class and score"
        )
    order = "class, score" if fitting[0] == _V7 else "score, class"
    doubt = f"the last two columns of {name} are taken as {order}: a trial picture does not tell"
    return Fit(
        facts.nc or 0,
        f"{name} is the picture's number, box, {order} of each object",
        {"output": name, "columns": list(fitting[0])},
        unused=facts.besides(name),
        warnings=(doubt,) if len(fitting) > 1 and any(len(values) for values in trials) else (),
    )


def _agree(rows: npt.NDArray[np.float64], number: int, score: int, nc: int | None) -> bool:
    classes, scores = rows[:, number], rows[:, score]
    whole = np.abs(classes - np.rint(classes)).max(initial=0.0) <= TOLERANCE and classes.min(initial=0.0) >= 0.0
    bounded = scores.min(initial=0.0) >= -TOLERANCE and scores.max(initial=0.0) <= 1.0 + TOLERANCE
    return bool(whole and bounded and classes.max(initial=0.0) <= (nc or 2**31) - 1)


def claims(facts: Facts) -> Iterator[Claim]:
    """Where the number of rows varies: it does not in ready rotated objects, which have seven columns too."""
    if facts.task in (None, "detect") and any(name in facts.varying for name in facts.outputs):
        yield Claim(Strength.GUESS if facts.task else Strength.SHAPE, "detect", ("the number of rows varies",))


FAMILY = Family(
    name="numbered",
    readers={"detect": Numbered},
    fits=fits,
    claims=claims,
    export="export without suppression (YOLOv7: without --end2end; YOLO-NAS: output_predictions_format=BATCH_FORMAT)",
)
