"""Detection transformers of Hugging Face that score each class on its own: RT-DETR, RT-DETRv2, D-FINE, Deformable DETR.

Their outputs have the names of DETR's, but no slot that means "nothing".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Outputs, require_finite
from stages.families.evidence import queries
from stages.families.facts import Facts
from stages.families.family import IMAGENET, Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.queries import best_pairs, boxes_and_logits, row_size
from stages.scores import sigmoid
from stages.tasks.options import DetectOptions

_RTDETR = Recipe("stretch", filter="bilinear")
_DEFORMABLE = Recipe("stretch", IMAGENET, filter="bilinear")


class RtDetrHf:
    """`logits` [q, classes], `pred_boxes` [q, 4] cxcywh normalised: a sigmoid per class, the best of all pairs.

    As `post_process_object_detection` of `RTDetrImageProcessor`: a query may appear with two classes.
    """

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._size = row_size(spec)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        predicted, logits = boxes_and_logits(outputs, ("pred_boxes", "logits"))
        require_finite(logits)
        return best_pairs(predicted * self._size, sigmoid(logits), options)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    if not queries(facts, "pred_boxes", "logits"):
        return Misfit(f"found outputs {facts.shown}; expected logits and pred_boxes [queries, 4]")
    slots = facts.outputs["logits"][1]
    if facts.nc is not None and facts.nc != slots:
        return Misfit(f"found {slots} columns of logits; expected {facts.nc}, one for each name")
    recipe = _DEFORMABLE if "pixel_mask" in facts.inputs else _RTDETR
    because = f"outputs logits and pred_boxes, and no slot for nothing among the {slots}: RT-DETR, D-FINE or their like"
    return Fit(slots, because, {"normalised": True}, recipe=recipe)


def has_empty_slot(facts: Facts) -> bool:
    """Whether the last slot of the logits means "nothing": it is the best one for most queries on a picture of noise.

    Where all are equal nothing is shown, and DETR's own slot is taken for granted; so it is beside DETR's mask.
    """
    logits = facts.arrays.get("logits")
    if logits is None or logits.ndim != 2 or not logits.size or "pixel_mask" in facts.inputs:
        return True
    last = logits.argmax(axis=1) == logits.shape[1] - 1
    return bool(np.mean(last) > 0.5 or np.ptp(logits) == 0.0)


def claims(facts: Facts) -> Iterator[Claim]:
    if not {"logits", "pred_boxes"} <= set(facts.outputs):
        return
    if facts.nc is not None:
        yield Claim(Strength.NAMES, "detect", (f"names for {facts.nc} classes",))
    elif not has_empty_slot(facts):
        doubt = "no names say whether the last slot means nothing, and few queries of a trial picture choose it"
        warning = f"{doubt}, so it is taken for a class: set family = detr if it is none"
        yield Claim(Strength.NAMES, "detect", ("the last slot of the logits is a class as others",), (warning,))


FAMILY = Family(
    name="rtdetr-hf",
    readers={"detect": RtDetrHf},
    fits=fits,
    claims=claims,
    recipe=_RTDETR,
    export="optimum-cli export onnx --model MODEL --task object-detection FOLDER  (dynamic by default)",
)
