"""Objects that a graph with its own suppression gives: a count, then boxes, scores and classes of equal length.

TensorRT's EfficientNMS and the exports made after it (YOLO-NAS' batch format, mmyolo, YOLOv8-TensorRT).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Outputs
from stages.families.evidence import are_fractions
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Strength
from stages.families.queries import named_output, ready, unit_of_boxes
from stages.tasks.options import DetectOptions


class Roles(NamedTuple):
    """Which output is what."""

    number: str  # [1] or [], how many of the rows are objects
    boxes: str  # [k, 4] xyxy
    scores: str  # [k]
    classes: str  # [k]


class EfficientNms:
    """The first `count` rows are objects; boxes are xyxy in row pixels, or fractions where `normalised` says so."""

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._roles = Roles(*spec.parameters["outputs"])
        self._unit = unit_of_boxes(spec)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        count = self._count(outputs)
        boxes = named_output(outputs, self._roles.boxes, 2)[:count]
        scores = named_output(outputs, self._roles.scores, 1)[:count]
        classes = named_output(outputs, self._roles.classes, 1)[:count]
        if boxes.shape != (count, 4) or len(scores) != count or len(classes) != count:
            raise InferError(f"expected {count} boxes, scores and classes; the model gave fewer")
        return ready(boxes, scores, classes, options, self._unit)

    def _count(self, outputs: Outputs) -> int:
        counts = outputs.get(self._roles.number)
        if counts is None or counts.size != 1 or not np.isfinite(counts).all() or not 0 <= int(counts.item()) < 2**31:
            raise InferError(f"expected the number of objects in the output {self._roles.number}")
        return int(counts.item())


def roles(arrays: Mapping[str, npt.NDArray[Any]]) -> Roles | None:
    """The roles of four outputs, by their shapes, and where these are alike by names, else by their types."""
    counts = [name for name, array in arrays.items() if array.size == 1 and "num" in name.lower()]
    boxes = [name for name, array in arrays.items() if array.ndim == 2 and array.shape[1] == 4]
    flat = [name for name, array in arrays.items() if array.ndim == 1 and name not in counts]
    if len(arrays) != 4 or len(counts) != 1 or len(boxes) != 1 or len(flat) != 2:
        return None
    if any(len(arrays[name]) != len(arrays[boxes[0]]) for name in flat):
        return None
    scores = [name for name in flat if "score" in name.lower() or "conf" in name.lower()]
    if len(scores) != 1:
        scores = [name for name in flat if arrays[name].dtype.kind == "f"]
    if len(scores) != 1:
        return None
    return Roles(counts[0], boxes[0], scores[0], next(name for name in flat if name != scores[0]))


def fits(facts: Facts, task: str) -> Fit | Misfit:
    found = roles(facts.arrays)
    if found is None:
        expected = "a number of objects, boxes [objects, 4], scores and classes [objects]"
        return Misfit(f"found outputs {facts.shown}; expected {expected}")
    parameters = {"outputs": list(found), "normalised": are_fractions(facts, found.boxes)}
    return Fit(facts.nc or 0, f"{found.number} counts objects, the other outputs hold them", parameters, guessed=True)


def claims(facts: Facts) -> Iterator[Claim]:
    found = roles(facts.arrays)
    # TensorFlow's own detectors have such outputs too, but y first, and count in floats.
    if found is not None and facts.arrays[found.number].dtype.kind in "iu":
        units = "fractions of the picture" if are_fractions(facts, found.boxes) else "pixels"
        warning = f"boxes are taken as xyxy in {units}"
        yield Claim(Strength.NAMES, "detect", (), (warning,))


FAMILY = Family(
    name="efficient-nms",
    readers={"detect": EfficientNms},
    fits=fits,
    claims=claims,
    export="set the batch to -1 or None in the exporter's shape (of YOLO-NAS: model.export(..., batch_size=None))",
)
