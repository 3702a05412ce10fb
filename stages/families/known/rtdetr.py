"""RT-DETR (lyuwenyu) and D-FINE as published: ready objects in pixels of the size that a second input names."""

from __future__ import annotations

from collections.abc import Iterator

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Outputs, as_float32, only_output
from stages.families.facts import Facts
from stages.families.family import Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.queries import ready
from stages.tasks.options import DetectOptions


class RtDetr:
    """`labels` [q] integers, `boxes` [q, 4] xyxy in row pixels, `scores` [q]."""

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        pass

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        boxes = as_float32(only_output(outputs, 2))
        flat = [array for array in outputs.values() if array.ndim == 1]
        labels = [array for array in flat if array.dtype.kind in "iu"]
        scores = [array for array in flat if array.dtype.kind == "f"]
        if len(labels) != 1 or len(scores) != 1:
            raise InferError("expected one output of integer labels and one of scores")
        return ready(boxes, as_float32(scores[0]), labels[0], options)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    missing = {"labels", "boxes", "scores"} - set(facts.outputs)
    if "orig_target_sizes" not in facts.inputs or missing:
        return Misfit(f"found outputs {facts.shown}; expected labels, boxes, scores, and an input orig_target_sizes")
    return Fit(facts.nc or 0, "an input orig_target_sizes, and outputs labels, boxes, scores: RT-DETR or D-FINE")


def claims(facts: Facts) -> Iterator[Claim]:
    if "orig_target_sizes" in facts.inputs:
        yield Claim(Strength.NAMES, "detect")


FAMILY = Family(
    name="rtdetr",
    readers={"detect": RtDetr},
    fits=fits,
    claims=claims,
    recipe=Recipe("stretch", filter="bilinear"),
    export="python tools/export_onnx.py -c CONFIG.yml -r MODEL.pth  (dynamic by default)",
)
