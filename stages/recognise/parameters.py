"""What the task has to know to read the outputs: thresholds and the details of the layout."""

from __future__ import annotations

from typing import Any

from stages.families import FAMILIES
from stages.families.evidence import extra_columns
from stages.families.facts import Facts
from stages.recognise.decision import Verdict
from stages.recognise.overrides import Overrides

CONFIDENCE = 0.25
IOU = 0.45
MAX_DETECTIONS = 300


def task_parameters(verdict: Verdict, facts: Facts, overrides: Overrides) -> dict[str, Any]:
    """`ModelSpec.parameters`: empty for tensors; see docs/models.md for the keys."""
    if verdict.task == "classify":
        return {"classes": verdict.fit.nc, **verdict.fit.parameters, **_of_classes(verdict, overrides)}
    if verdict.task == "text":
        least = 0.0 if overrides.conf is None else overrides.conf
        return {"classes": verdict.fit.nc, **verdict.fit.parameters, "confidence": least}
    if FAMILIES[verdict.family].readers[verdict.task] is None:
        return dict(verdict.fit.parameters)
    return {"classes": verdict.fit.nc, **_of_objects(verdict, facts, overrides), **verdict.fit.parameters}


def _of_objects(verdict: Verdict, facts: Facts, overrides: Overrides) -> dict[str, Any]:
    family = FAMILIES[verdict.family]
    found: dict[str, Any] = {
        "confidence": CONFIDENCE if overrides.conf is None else overrides.conf,
        "iou": IOU if overrides.iou is None else overrides.iou,
        "max_detections": MAX_DETECTIONS,
        "nms": not family.needs_nms,  # already applied, or none needed
        "normalised": False,
        "softmax": False,
        "background": None,
    }
    if verdict.task == "keypoints":
        found["kpt_shape"] = list(facts.kpt_shape or (17, 3))
    if verdict.task == "segment" and not family.ready_masks:
        found["coefficients"] = extra_columns(facts, "segment")
    return found


def _of_classes(verdict: Verdict, overrides: Overrides) -> dict[str, Any]:
    """Where several classes may be true at once, logits get a sigmoid each."""
    several = bool(overrides.multi_label)
    least = CONFIDENCE if several else 0.0  # the best class is an answer however weak it is
    found: dict[str, Any] = {
        "confidence": least if overrides.conf is None else overrides.conf,
        "multi_label": several,
    }
    if several and verdict.fit.parameters.get("activation") == "softmax":
        found |= {"activation": "sigmoid", "softmax": False}
    return found
