"""JSON that clients send, read into types; what is wrong with it in words. Pure."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from parallel_infer.errors import BadInput
from parallel_infer.json_keys import twice

Kind = TypeVar("Kind")


def decoded(json: memoryview, kind: type[Kind]) -> Kind:
    """A request's JSON. Raises BadInput where it cannot be read, and for a name that is given twice."""
    try:
        found = msgspec.json.decode(json, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"the request's JSON cannot be read: {readable(error)}") from None
    check_once(json)
    return found


def check_once(json: memoryview | bytes) -> None:
    """Raises BadInput for a name that is there twice in one object of a valid JSON text: either might be meant."""
    name = twice(json)
    if name is not None:
        raise BadInput(f"{name[:64]!r} is given twice in the JSON; give it once")


def readable(error: Exception) -> str:
    """A decoder's complaint with the place named as people write it: `$.inputs[0].shape` is inputs[0].shape."""
    return str(error).replace("`$.", "`").replace("at `$`", "at the top")
