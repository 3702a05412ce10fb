"""DETR of Hugging Face: one object per query, whose last class means that there is none."""

from __future__ import annotations

from collections.abc import Iterator

from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Outputs, require_finite
from stages.families.evidence import queries
from stages.families.facts import Facts
from stages.families.family import IMAGENET, Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.queries import best_classes, boxes_and_logits, row_size
from stages.scores import softmax
from stages.tasks.options import DetectOptions


class Detr:
    """`logits` [q, classes + 1], `pred_boxes` [q, 4] cxcywh normalised: softmax, the last slot means no object."""

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._size = row_size(spec)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        predicted, logits = boxes_and_logits(outputs, ("pred_boxes", "logits"))
        require_finite(logits)
        return best_classes(predicted * self._size, softmax(logits)[:, :-1], options)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    if not queries(facts, "pred_boxes", "logits"):
        return Misfit(f"found outputs {facts.shown}; expected logits and pred_boxes [queries, 4]")
    nc = facts.outputs["logits"][1] - 1
    if facts.nc is not None and facts.nc != nc:
        return Misfit(f"found {nc + 1} columns of logits; expected {facts.nc + 1}: the names and one for nothing")
    parameters = {"normalised": True, "softmax": True, "background": nc}
    return Fit(nc, "outputs logits and pred_boxes: DETR", parameters)


def claims(facts: Facts) -> Iterator[Claim]:
    if {"logits", "pred_boxes"} <= set(facts.outputs):
        masks = "the masks of this DETR are not decoded, only its boxes"
        yield Claim(Strength.NAMES, "detect", (), (masks,) if "pred_masks" in facts.outputs else ())


FAMILY = Family(
    name="detr",
    readers={"detect": Detr},
    fits=fits,
    claims=claims,
    recipe=Recipe("stretch", IMAGENET, filter="bilinear"),
    export="optimum-cli export onnx --model MODEL --task object-detection FOLDER  (dynamic by default)",
)
