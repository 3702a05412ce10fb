"""Embeddings: a vector for a picture, from vision transformers, CLIP, ArcFace and the like."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stages.families.evidence import NO_METADATA
from stages.families.facts import Facts
from stages.families.family import IMAGENET, Claim, Family, Fit, Misfit, Recipe, Strength

# By what they are called, the most ready first; `last_hidden_state` holds one for each token, the first being CLS.
_NAMES = ("image_embeds", "pooler_output", "sentence_embedding", "embeddings", "embedding", "last_hidden_state")
_ARCFACE_SIDE = 112
_ARCFACE = Recipe("stretch", ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)))
_TRANSFORMER = Recipe("crop", IMAGENET, crop_fraction=0.875, filter="bicubic")


def _is_arcface(facts: Facts) -> bool:
    """One row of numbers, some below 0, for a picture of ArcFace's size: no class scores with their names."""
    name = _only_row(facts)
    if facts.size != (_ARCFACE_SIDE, _ARCFACE_SIDE) or name is None or facts.nc is not None or facts.rows[name] < 2:
        return False
    return bool(np.min(facts.arrays[name]) < 0.0)


def _only_row(facts: Facts) -> str | None:
    """The output that is one row of numbers, where there is one."""
    return next(iter(facts.rows)) if len(facts.rows) == 1 else None


def _output(facts: Facts) -> str | None:
    named = [name for name in _NAMES if name in facts.outputs]
    name = _only_row(facts)
    return next((name for name in (*named, *([] if name is None else [name])) if facts.outputs[name]), None)


def fits(facts: Facts, task: str) -> Fit | Misfit:
    name = _output(facts)
    if name is None or facts.arrays[name].dtype.kind != "f" or facts.outputs[name][-1] < 2:
        return Misfit(f"found outputs {facts.shown}; expected a vector, or one for each token in last_hidden_state")
    shape = list(facts.outputs[name])
    what = "a vector" if facts.arrays[name].size == max(shape) else "vectors of tokens, the first of which is taken"
    unused = tuple(other for other in facts.outputs if other != name and other not in _NAMES)
    recipe = _ARCFACE if facts.size == (_ARCFACE_SIDE, _ARCFACE_SIDE) else _TRANSFORMER
    return Fit(0, f"{name} {shape} is {what}", {"output": name}, recipe=recipe, guessed=True, unused=unused)


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task == "embedding":
        yield Claim(Strength.TASK, "embedding", (facts.because,))
        return
    if facts.task is not None or facts.nc is not None:
        return
    if set(_NAMES) & set(facts.outputs) and "logits" not in facts.outputs:
        yield Claim(Strength.NAMES, "embedding")
    elif _is_arcface(facts):
        evidence = ("pictures of 112 x 112 and numbers below 0 without names: an embedding of faces, such as ArcFace",)
        warning = f"{NO_METADATA}: an embedding; set task = classify if these are class scores"
        yield Claim(Strength.SHAPE, "embedding", evidence, (warning,))


FAMILY = Family(
    name="embedding",
    readers={"embedding": None},
    fits=fits,
    claims=claims,
    export="optimum-cli export onnx --model MODEL --task feature-extraction FOLDER  (dynamic by default)",
)
