"""One answer out of several: parts of a fan side by side, children of a chain under their objects. Pure.

Bodies come from postprocess workers and are only put together here, as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from parallel_infer.chains.plan import Node
from parallel_infer.ipc.messages import AnswerFormat

_encode = msgspec.msgpack.Encoder().encode
_fields = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode
_objects = msgspec.msgpack.Decoder(list[dict[str, Any]]).decode


class Ended(Protocol):
    """A part that has its answer or its error."""

    node: Node
    object: int  # that it is about, in the answer above it
    body: bytes
    payload: Any
    timing: dict[str, float]
    batch: int
    failure: tuple[str, str] | None  # code and text
    left_out: dict[str, int]

    @property
    def below(self) -> Sequence[Ended]: ...


def assembled(name: str, roots: Sequence[Ended], wanted: AnswerFormat) -> tuple[bytes, bytes]:
    """Body and payload of the whole answer; several roots are a fan called `name`."""
    if wanted == AnswerFormat.OBJECTS:
        if len(roots) == 1:
            return _encode(_map(roots[0])), b""
        return _encode({"model": name, "parts": {root.node.name: _mapped(root) for root in roots}}), b""
    pieces: list[Any] = []
    if len(roots) == 1:
        return _encode(_body(roots[0], pieces)), b"".join(pieces)
    found = next(_fields(root.body) for root in roots if root.failure is None)
    size = {key: found[key] for key in ("width", "height") if key in found}
    return _encode({"task": "fan", "model": name, **size, "parts": [_part(root, pieces) for root in roots]}), b"".join(
        pieces
    )


def _body(part: Ended, pieces: list[Any]) -> dict[str, Any]:
    """An AnswerBody; the arrays of the whole tree follow each other as the bodies do."""
    body: dict[str, Any] = {**_fields(part.body), "model": part.node.name}
    if len(part.payload):
        pieces.append(part.payload)
    if part.node.then:
        body["children"] = [{"object": child.object, **_part(child, pieces)} for child in _in_order(part.below)]
    if part.left_out:
        body["left_out"] = part.left_out
    return body


def _part(part: Ended, pieces: list[Any]) -> dict[str, Any]:
    if part.failure is not None:
        return {"model": part.node.name, "error": _error(part.failure)}
    return {
        "model": part.node.name,
        "answer": _body(part, pieces),
        "timing": part.timing,
        "batch": part.batch,
    }


def _map(part: Ended) -> dict[str, Any]:
    """A result map, with the children of each prediction."""
    found: dict[str, Any] = dict(_fields(part.body))
    if part.below:
        predictions = _objects(found["predictions"])
        for child in _in_order(part.below):
            predictions[child.object].setdefault("children", {})[child.node.name] = _mapped(child)
        found["predictions"] = predictions
    if part.left_out:
        found["left_out"] = part.left_out
    return found


def _mapped(part: Ended) -> dict[str, Any]:
    return _map(part) if part.failure is None else {"error": _error(part.failure)}


def _error(error: tuple[str, str]) -> dict[str, str]:
    return {"code": error[0], "message": error[1]}


def _in_order(parts: Sequence[Ended]) -> list[Ended]:
    return sorted(parts, key=lambda part: part.object)
