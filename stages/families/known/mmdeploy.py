"""Objects as MMDeploy exports them: boxes with their scores in one output, labels in another, masks in a third."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from parallel_infer.errors import InferError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Outputs
from stages.families.facts import Facts
from stages.families.family import IMAGENET, Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.queries import named_output, ready
from stages.tasks.options import DetectOptions


class MmDeploy:
    """`dets` [k, 5]: xyxy in row pixels and the score; `labels` [k]. Unused rows have the score 0 or the label -1."""

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        pass

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        rows = named_output(outputs, "dets", 2)
        labels = named_output(outputs, "labels", 1)
        if rows.shape != (len(labels), 5):
            raise InferError(f"expected dets [{len(labels)}, 5] for as many labels, the model gave {list(rows.shape)}")
        scores = np.where(np.rint(labels) < 0, np.float32(0), rows[:, 4])
        return ready(rows[:, :4], scores, labels, options)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    rows, labels = facts.outputs.get("dets", ()), facts.outputs.get("labels", ())
    if len(rows) != 2 or rows[1] != 5 or len(labels) != 1 or (labels[0] != rows[0]):
        return Misfit(f"found outputs {facts.shown}; expected dets [objects, 5] and labels [objects]")
    parameters: dict[str, Any] = {}
    if task == "segment":
        masks = facts.outputs.get("masks", ())
        if len(masks) != 3 or masks[0] != rows[0] or facts.only_of_rank(3) is None:
            return Misfit(f"found outputs {facts.shown}; expected masks [objects, h, w] too")
        parameters = {"masks_in_boxes": masks[1:] != facts.size, "mask_threshold": 0.5}
    used = ("dets", "labels", "masks") if task == "segment" else ("dets", "labels")
    return Fit(
        facts.nc or 0,
        f"outputs {', '.join(used)}, five columns in dets: MMDeploy",
        parameters,
        guessed=True,
        unused=facts.besides(*used),
    )


def claims(facts: Facts) -> Iterator[Claim]:
    """Masks have the size of the row, or (`export_postprocess_mask=False`) span the box of their object."""
    if {"dets", "labels"} <= set(facts.outputs):
        if "masks" in facts.outputs:
            yield Claim(Strength.NAMES, "segment")
        yield Claim(Strength.NAMES, "detect")


FAMILY = Family(
    name="mmdeploy",
    readers={"detect": MmDeploy, "segment": MmDeploy},
    ready_masks=True,
    fits=fits,
    claims=claims,
    recipe=Recipe("letterbox-corner", IMAGENET),
    export="tools/deploy.py configs/mmdet/detection/detection_onnxruntime_dynamic.py CONFIG.py MODEL.pth PICTURE",
)
