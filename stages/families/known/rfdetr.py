"""RF-DETR: boxes as fractions and logits of each class, for each query; masks where it has them."""

from __future__ import annotations

from collections.abc import Iterator

from parallel_infer.errors import ConfigError
from parallel_infer.model_spec import ModelSpec
from stages.candidates import Candidates, Outputs, require_finite
from stages.families.evidence import queries
from stages.families.facts import Facts
from stages.families.family import IMAGENET, Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.queries import best_pairs, boxes_and_logits, row_size
from stages.scores import sigmoid
from stages.tasks.options import DetectOptions


class RfDetr:
    """`dets` [q, 4] cxcywh normalised, `labels` [q, c] logits: a sigmoid per class, the best of all q x c pairs.

    A query may appear with two classes, as in the published post-processing. `background`, a slot of some
    checkpoints that means nothing, is never an answer. `masks` [q, h, w] belong to the queries by their index.
    """

    overlapping = False

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._size = row_size(spec)
        self._background: int | None = spec.parameters.get("background")

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        dets, logits = boxes_and_logits(outputs, ("dets", "labels"))
        require_finite(logits)
        scores = sigmoid(logits)
        if self._background is not None:
            scores[:, self._background % scores.shape[1]] = 0.0  # never above a confidence
        return best_pairs(dets * self._size, scores, options)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    names = ("dets", "labels", "masks") if task == "segment" else ("dets", "labels")
    if any(name not in facts.outputs for name in names) or not queries(facts, "dets", "labels"):
        return Misfit(f"found outputs {facts.shown}; expected {', '.join(names)}: dets [queries, 4]")
    slots = facts.outputs["labels"][1]
    parameters = {"normalised": True, "background": _background(slots, facts.background)}
    return Fit(slots, f"outputs {', '.join(names)}: RF-DETR", parameters)


def _background(slots: int, asked: int | None) -> int | None:
    """The class slot that means nothing: it depends on the checkpoint."""
    if asked is None:
        return None
    if not -slots <= asked < slots:
        raise ConfigError(f"background {asked} is out of range: the model has {slots} class slots")
    return asked % slots


def claims(facts: Facts) -> Iterator[Claim]:
    if {"dets", "labels"} <= set(facts.outputs):
        yield Claim(Strength.NAMES, "segment" if "masks" in facts.outputs else "detect")


FAMILY = Family(
    name="rfdetr",
    readers={"detect": RfDetr, "segment": RfDetr},
    fits=fits,
    claims=claims,
    recipe=Recipe("stretch", IMAGENET, filter="bilinear"),
    ready_masks=True,
    options=("background",),
    export="model.export(dynamic_batch=True)",
)
