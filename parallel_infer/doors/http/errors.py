"""Errors as every HTTP client of ours understands them: one body, and the status that fits the code. Pure."""

from __future__ import annotations

import msgspec

from parallel_infer.doors.statuses import INTERNAL, STATUSES
from parallel_infer.errors import BadInput, InferError

_encode = msgspec.json.Encoder().encode


class HttpError(InferError):
    """An error whose status its code does not tell: too large, no such route, a method that is not there."""

    def __init__(self, status: int, text: str, name: str = BadInput.code) -> None:
        super().__init__(text)
        self.status = status
        self.name = name  # the code in the body
        self.code = name  # type: ignore[misc]  # ... and in the counters


def status_of(error: InferError) -> int:
    """The HTTP status of an error."""
    return error.status if isinstance(error, HttpError) else STATUSES.get(error.code, INTERNAL).http


def body_of(error: InferError) -> bytes:
    """{"code", "error", "message"}: tritonclient reads `error`, Roboflow's SDK `message`."""
    code = error.name if isinstance(error, HttpError) else error.code
    return _encode({"code": code, "error": str(error), "message": str(error)})


def headers_of(status: int) -> dict[str, str]:
    """What goes with an error: when to come back, or how to say who one is."""
    if status == 503:
        return {"Retry-After": "1"}
    return {"WWW-Authenticate": "Bearer"} if status == 401 else {}
