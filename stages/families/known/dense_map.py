"""A number for each place of the picture: depth, saliency, heat, how unusual it is."""

from __future__ import annotations

from collections.abc import Iterator

from stages.families.facts import Facts
from stages.families.family import IMAGENET, Claim, Family, Fit, Misfit, Recipe, Strength
from stages.families.known.semantic import spans_row

_NAMES = (
    "predicted_depth",
    "depth",
    "metric_depth",
    "inverse_depth",
    "disparity",
    "saliency",
    "saliency_map",
    "anomaly_map",
)
_SCORES = ("pred_score", "pred_scores", "anomaly_score")  # of the whole picture, beside the map


def _grids(facts: Facts) -> list[str]:
    """Outputs of one float for each place of a grid that spans the row."""
    return [
        name
        for name, shape in facts.outputs.items()
        if len(shape) >= 2
        and facts.arrays[name].size == shape[-2] * shape[-1]
        and facts.arrays[name].dtype.kind == "f"
        and spans_row(facts, *shape[-2:])
    ]


def _output(facts: Facts) -> str | None:
    found = _grids(facts)
    named = [name for name in _NAMES if name in found]
    return named[0] if named else found[0] if found and len(found) == len(facts.outputs) else None


def fits(facts: Facts, task: str) -> Fit | Misfit:
    name = _output(facts)
    if name is None:
        return Misfit(f"found outputs {facts.shown}; expected [h, w] or [1, h, w], a part of the row's size")
    score = next((other for other in _SCORES if other in facts.outputs and facts.arrays[other].size == 1), None)
    beside = f", and {score} one for the whole picture" if score is not None else ""
    return Fit(
        0,
        f"{name} {list(facts.outputs[name])} is a number for each place{beside}",
        {"output": name} if score is None else {"output": name, "score": score},
        guessed=True,
        unused=facts.besides(name, score),
    )


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task == "map":
        yield Claim(Strength.TASK, "map", (facts.because,))
        return
    name = _output(facts)
    if facts.task is None and facts.nc is None and name in _NAMES:
        yield Claim(Strength.NAMES, "map")


FAMILY = Family(
    name="map",
    readers={"map": None},
    fits=fits,
    claims=claims,
    recipe=Recipe("stretch", IMAGENET, filter="bicubic"),
    export="optimum-cli export onnx --model MODEL --task depth-estimation FOLDER  (dynamic by default)",
)
