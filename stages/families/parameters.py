"""What the task has to know to read the outputs: thresholds and the details of the layout."""

from __future__ import annotations

from typing import Any

import numpy as np

from parallel_infer.errors import ConfigError
from stages.families.catalogue import OWN
from stages.families.decision import Verdict
from stages.families.effects import needs_suppression
from stages.families.layouts import Facts, extra_columns
from stages.families.overrides import Overrides

CONFIDENCE = 0.25
IOU = 0.45
MAX_DETECTIONS = 300
_NORMALISED = ("rtdetr-ultralytics", "rtdetr-ultralytics-end2end", "rfdetr", "detr")


def task_parameters(verdict: Verdict, facts: Facts, overrides: Overrides) -> dict[str, Any]:
    """`ModelSpec.parameters`: empty for tensors; see docs/models.md for the keys."""
    if verdict.task == "tensor" or verdict.family == OWN:
        return {}
    parameters = {"classes": verdict.fit.nc, **verdict.fit.parameters}
    if verdict.task == "classify":
        return {**parameters, **_of_classes(facts, overrides)}
    return {**parameters, **_of_objects(verdict, facts, overrides)}


def _of_objects(verdict: Verdict, facts: Facts, overrides: Overrides) -> dict[str, Any]:
    found: dict[str, Any] = {
        "confidence": CONFIDENCE if overrides.conf is None else overrides.conf,
        "iou": IOU if overrides.iou is None else overrides.iou,
        "max_detections": MAX_DETECTIONS,
        "nms": not needs_suppression(verdict.family),  # already applied, or none needed
        "normalised": verdict.family in _NORMALISED,
        "softmax": verdict.family == "detr",
        "background": _background(verdict, facts, overrides),
    }
    if verdict.task == "keypoints":
        found["kpt_shape"] = list(facts.kpt_shape or (17, 3))
    if verdict.task == "segment" and verdict.family != "rfdetr":
        found["coefficients"] = extra_columns(facts, "segment")
    return found


def _background(verdict: Verdict, facts: Facts, overrides: Overrides) -> int | None:
    """The class slot that means "nothing": the last of DETR; of RF-DETR it depends on the checkpoint."""
    if verdict.family == "detr":
        return verdict.fit.nc
    if overrides.background is None or verdict.family != "rfdetr":
        return None
    slots = facts.outputs["labels"][1]
    if not -slots <= overrides.background < slots:
        raise ConfigError(f"background {overrides.background} is out of range: the model has {slots} class slots")
    return overrides.background % slots


def _of_classes(facts: Facts, overrides: Overrides) -> dict[str, Any]:
    """`softmax` where a trial row does not sum to 1 already."""
    name, _ = facts.class_scores or ("", 0)
    scores = np.asarray(facts.arrays[name], np.float64)
    several = bool(overrides.multi_label)
    least = CONFIDENCE if several else 0.0  # the best class is an answer however weak it is
    sums_to_one = bool(np.all(scores >= 0.0)) and bool(np.isclose(scores.sum(), 1.0, atol=0.01))
    return {
        "confidence": least if overrides.conf is None else overrides.conf,
        "multi_label": several,
        "softmax": not several and not sums_to_one,
    }
