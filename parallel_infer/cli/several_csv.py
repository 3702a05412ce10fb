"""Fans and chains as lines: of CSV, one for each object or class of every answer in it, and of what failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from parallel_infer.answers.answer import Answer
from parallel_infer.errors import BadInput, InferError

COLUMNS = ("model", "object", "class", "class_id", "confidence", "x1", "y1", "x2", "y2", "text")


class Said(NamedTuple):
    """What one model says, and about whom: "" is the whole picture, "0.2" the object 2 found below the object 0."""

    model: str
    path: str
    answer: Answer | InferError


def said_in(answer: Answer | InferError, model: str = "", path: str = "") -> Iterator[Said]:
    """An answer and all that hang under it."""
    if isinstance(answer, InferError):
        yield Said(model, path, answer)
        return
    if answer.task != "fan":
        yield Said(model or answer.model, path, answer)
    for name, part in answer.parts.items():
        yield from said_in(part, name, path)
    for number, children in enumerate(answer.children):
        for name, child in children.items():
            yield from said_in(child, name, _below(path, number))


class Failure(NamedTuple):
    """What a model says nothing about: the first such place, and how many more failed there of the same."""

    model: str
    path: str
    code: str
    text: str
    more: int


def failures_in(answer: Answer) -> list[Failure]:
    """Every error that stands in the place of a part's or an object's answer, each kind once."""
    found: dict[tuple[str, str, str], Failure] = {}
    for said in said_in(answer):
        if isinstance(error := said.answer, InferError):
            kind = (said.model, error.code, str(error))
            first = found.get(kind, Failure(said.model, said.path, error.code, str(error), -1))
            found[kind] = first._replace(more=first.more + 1)
    return list(found.values())


def rows_of(said: Said) -> Iterator[tuple[object, ...]]:
    """The lines of one answer, without the file. Raises BadInput for what has no place in a line."""
    answer = said.answer
    if isinstance(answer, InferError):
        return
    if answer.task == "text":
        score = float(answer.to_dict()["confidence"])
        yield said.model, said.path, "", "", f"{score:.6g}", *[""] * 4, answer.text
        return
    if len(answer.names) != len(answer.scores) or answer.task in ("tensor", "embedding", "map"):
        raise BadInput(f"what {said.model!r} says ({answer.task}) has no place in a line of CSV; use --json")
    boxes = [[f"{value:.2f}" for value in box] for box in answer.boxes.tolist()] or [[""] * 4] * len(answer)
    found = zip(answer.names, answer.classes.tolist(), answer.scores.tolist(), boxes, strict=True)
    for number, (name, class_id, score, box) in enumerate(found):
        place = _below(said.path, number) if len(answer.boxes) else said.path
        yield said.model, place, name, class_id, f"{score:.6g}", *box, ""


def _below(path: str, number: int) -> str:
    return f"{path}.{number}" if path else str(number)
