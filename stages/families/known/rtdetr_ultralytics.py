"""Older RT-DETR exports of Ultralytics: boxes as fractions and the scores of all classes, for each query."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Outputs, as_float32, main_output
from stages.families.evidence import (
    FRACTIONS,
    MOST_ROWS,
    NO_METADATA,
    beyond,
    classes,
    objectness_family,
    reach,
    ready_task,
    table,
    unused,
)
from stages.families.facts import Facts, Metadata
from stages.families.family import Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.known.yolov8 import ULTRALYTICS
from stages.families.queries import best_classes, row_size
from stages.tasks.options import DetectOptions


class RtDetrUltralytics:
    """[q, 4 + classes]: cxcywh normalised to the row, scores (sigmoid done); the best class of each query."""

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._size = row_size(spec)
        self._output: str | None = spec.parameters.get("output")

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        rows = as_float32(main_output(outputs, self._output, 2))
        if rows.shape[1] <= 4:
            raise InferError(f"expected rows of more than 4 numbers, the model gave {rows.shape[1]}")
        return best_classes(rows[:, :4] * self._size, rows[:, 4:], options)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    found = table(facts, task)
    if isinstance(found, Misfit):
        return found
    if found.rows > MOST_ROWS:
        return Misfit(f"found {found.shown}; expected [at most {MOST_ROWS} queries, 4 + classes]")
    fit = classes(facts, found.columns, 4, found.shown, "[queries, 4 + classes]")
    if isinstance(fit, Misfit):
        return fit
    wrong = beyond(facts, found.name, lambda values: values[:, 4:])
    if wrong is not None:
        return Misfit(f"found {found.shown}; expected [queries, 4 + classes], but {wrong}")
    parameters = {"output": found.name, "normalised": True}
    return msgspec.structs.replace(fit, parameters=parameters, unused=unused(facts, found, task))


def is_rtdetr(metadata: Metadata) -> bool:
    """Whether the metadata names one: newer exports name the head, older ones only the model in the description."""
    return metadata.head == "RTDETRDecoder" or "rtdetr" in metadata.description.lower().replace("-", "")


def claims(facts: Facts) -> Iterator[Claim]:
    """Newer exports name their head and come out as [queries, 6]; for two classes both layouts have six columns."""
    newer = facts.metadata.head or facts.metadata.end2end
    if facts.task == "detect":
        if is_rtdetr(facts.metadata):
            strength = Strength.GUESS if newer else Strength.SAID
            yield Claim(strength, "detect", (facts.because, "metadata names an RT-DETR"))
        # For two classes [queries, 4 + 2] looks like ready objects, whose boxes are pixels more often than not.
        if reach(facts) <= FRACTIONS:
            yield Claim(Strength.GUESS, "detect", (facts.because,))
    elif facts.task is None and facts.nc is not None and _rows_of_nothing_else(facts):
        yield Claim(Strength.SHAPE, "detect", (NO_METADATA,))


def _rows_of_nothing_else(facts: Facts) -> bool:
    return ready_task(facts) is None and objectness_family(facts) is None


FAMILY = Family(
    name="rtdetr-ultralytics",
    readers={"detect": RtDetrUltralytics},
    fits=fits,
    claims=claims,
    recipe=Recipe("stretch"),
    export=ULTRALYTICS,
)
