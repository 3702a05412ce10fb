"""Embeddings: a vector for a picture, from vision transformers, CLIP, ArcFace and the like."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from stages.families.evidence import NO_METADATA, TOLERANCE
from stages.families.facts import Facts
from stages.families.family import IMAGENET, Claim, Family, Fit, Misfit, Recipe, Strength

# By what they are called, the most ready first; `last_hidden_state` holds one for each token, the first being CLS.
_NAMES = ("image_embeds", "pooler_output", "sentence_embedding", "embeddings", "embedding", "last_hidden_state")
_TOKENS = "last_hidden_state"
_NAMED = re.compile(r"embed|feature|vector", re.IGNORECASE)
_NAMED_SCORES = re.compile(r"logit|prob|softmax|score|class", re.IGNORECASE)
_SCORES = ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid")  # operators that end with class scores
_LENGTHS = frozenset((128, 192, 256, 320, 384, 512, 768, 960, 1024, 1280, 1536, 2048, 4096))  # of most embeddings
_PATCHES = (8, 14, 16, 32)  # pixels along a side of those that transformers cut pictures into
_ARCFACE_SIDE = 112
_ARCFACE = Recipe("stretch", ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)))
_TRANSFORMER = Recipe("crop", IMAGENET, crop_fraction=0.875, filter="bicubic")


def _is_arcface(facts: Facts) -> bool:
    """One row of numbers, some below 0, for a picture of ArcFace's size: no class scores with their names."""
    name = _only_row(facts)
    if facts.size != (_ARCFACE_SIDE, _ARCFACE_SIDE) or name is None or facts.nc is not None or facts.rows[name] < 2:
        return False
    return bool(np.min(facts.arrays[name]) < 0.0)


def _has_usual_length(facts: Facts, name: str) -> bool:
    """Whether a nameless row is as long as vectors usually are, and nothing says that its numbers are scores."""
    if facts.rows.get(name) not in _LENGTHS or facts.arrays[name].dtype.kind != "f":
        return False
    if facts.operators.get(name) in _SCORES or _NAMED_SCORES.search(name):
        return False
    rows = [np.asarray(values, np.float64).ravel() for values in facts.trials(name)]
    return not all(row.min() >= -TOLERANCE and abs(row.sum() - 1.0) <= TOLERANCE for row in rows)


def _has_length_one(facts: Facts, name: str) -> bool:
    """Whether each trial picture gave a vector of length 1 with numbers below 0."""
    rows = [np.asarray(values, np.float64).ravel() for values in facts.trials(name)]
    return all(len(row) > 2 and row.min() < 0.0 and abs(np.linalg.norm(row) - 1.0) <= TOLERANCE for row in rows)


def _only_row(facts: Facts) -> str | None:
    """The output that is one row of numbers, where there is one."""
    return next(iter(facts.rows)) if len(facts.rows) == 1 else None


def _output(facts: Facts) -> str | None:
    named = [name for name in _NAMES if name in facts.rows or (name == _TOKENS and _rank(facts, name) == 2)]
    alone = _only_row(facts)
    return next(iter((*named, *([] if alone is None else [alone]))), None)


def _rank(facts: Facts, name: str) -> int:
    return len(facts.outputs.get(name, ()))


def _is_grid(facts: Facts, tokens: int) -> bool:
    """Whether there is one token for each patch of the picture and none for all of it, as Swin has them."""
    height, width = facts.size
    return tokens in {(height // side) * (width // side) for side in _PATCHES}


def fits(facts: Facts, task: str) -> Fit | Misfit:
    name = _output(facts)
    if name is None or facts.arrays[name].dtype.kind != "f" or facts.arrays[name].size < 2:
        return Misfit(f"found outputs {facts.shown}; expected a vector, or one for each token in {_TOKENS}")
    shape = list(facts.outputs[name])
    is_row = name in facts.rows
    if not is_row and not facts.insisted and _is_grid(facts, shape[0]):
        return Misfit(f"found {name} {shape}, a vector for each patch and none for the whole picture")
    what = "a vector" if is_row else "vectors of tokens, the first of which is taken"
    doubt = f"the first of the {shape[0]} vectors of {name} is taken for the whole picture: set task = tensor for all"
    unused = facts.besides(name, *_NAMES)
    warnings = () if is_row else (doubt,)
    recipe = _ARCFACE if facts.size == (_ARCFACE_SIDE, _ARCFACE_SIDE) else _TRANSFORMER
    return Fit(
        0, f"{name} {shape} is {what}", {"output": name}, recipe=recipe, guessed=True, unused=unused, warnings=warnings
    )


def claims(facts: Facts) -> Iterator[Claim]:
    if facts.task == "embedding":
        yield Claim(Strength.TASK, "embedding", (facts.because,))
        return
    if facts.task is not None or facts.nc is not None:
        return
    name = _output(facts)
    if name is None or "logits" in facts.outputs:
        return
    if name in _NAMES or _NAMED.search(name):
        yield Claim(Strength.NAMES, "embedding")
    elif _has_length_one(facts, name):
        evidence = ("numbers below 0, and the vector of each trial picture has the length 1",)
        warning = f"{NO_METADATA}: an embedding; set task = tensor if these numbers are something else"
        yield Claim(Strength.SHAPE, "embedding", evidence, (warning,))
    elif _has_usual_length(facts, name):
        evidence = (f"{facts.rows[name]} numbers, as many as embeddings have, and nothing says that they are scores",)
        warning = f"{NO_METADATA}: an embedding; set task = classify if these are class scores"
        yield Claim(Strength.SHAPE, "embedding", evidence, (warning,))
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
