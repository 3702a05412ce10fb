"""Embeddings: a vector for a picture, from vision transformers, CLIP, ArcFace and the like."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stages.families.evidence import PREPARING
from stages.families.facts import Facts
from stages.families.family import IMAGENET, Claim, Family, Fit, Misfit, Recipe, Strength

# By what they are called, the most ready first; `last_hidden_state` holds one for each token, the first being CLS.
_NAMES = ("image_embeds", "pooler_output", "sentence_embedding", "embeddings", "embedding", "last_hidden_state")
_ARCFACE_SIDE = 112
_ARCFACE = Recipe("stretch", ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)))
_TRANSFORMER = Recipe("crop", IMAGENET, crop_fraction=0.875, filter="bicubic")


def _is_arcface(facts: Facts) -> bool:
    """One row of numbers, some below 0, for a picture of ArcFace's size: no class scores with their names."""
    scores = facts.class_scores
    if facts.size != (_ARCFACE_SIDE, _ARCFACE_SIDE) or scores is None or facts.nc is not None or scores[1] < 2:
        return False
    return bool(np.min(facts.arrays[scores[0]]) < 0.0)


def _output(facts: Facts) -> str | None:
    named = [name for name in _NAMES if name in facts.outputs]
    rows = [name for name in facts.outputs if facts.class_scores is not None and name == facts.class_scores[0]]
    return next((name for name in (*named, *rows) if facts.outputs[name]), None)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    name = _output(facts)
    if name is None or facts.arrays[name].dtype.kind != "f" or facts.outputs[name][-1] < 2:
        return Misfit(f"found outputs {facts.shown}; expected a vector, or one for each token in last_hidden_state")
    shape = list(facts.outputs[name])
    what = "a vector" if facts.arrays[name].size == max(shape) else "vectors of tokens, the first of which is taken"
    recipe = _ARCFACE if facts.size == (_ARCFACE_SIDE, _ARCFACE_SIDE) else _TRANSFORMER
    return Fit(0, f"{name} {shape} is {what}", {"output": name}, recipe=recipe)


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task == "embedding":
        yield Claim(Strength.TASK, "embedding", (facts.because,))
        return
    if facts.task is not None or facts.nc is not None:
        return
    if set(_NAMES) & set(facts.outputs) and "logits" not in facts.outputs:
        warning = f"pictures are prepared as DINOv2's are: {PREPARING}"
        yield Claim(Strength.NAMES, "embedding", (), (warning,))
    elif _is_arcface(facts):
        evidence = ("pictures of 112 x 112 and numbers below 0 without names: an embedding of faces, such as ArcFace",)
        warning = f"set task = classify if these are class scores; pictures are prepared as ArcFace's are: {PREPARING}"
        yield Claim(Strength.SHAPE, "embedding", evidence, (warning,))


FAMILY = Family(
    name="embedding",
    readers={"embedding": None},
    fits=fits,
    claims=claims,
    export="optimum-cli export onnx --model MODEL --task feature-extraction FOLDER  (dynamic by default)",
)
