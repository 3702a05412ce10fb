"""Every way a request can fail, as a named error.

An error travels as its code and a text; `error_for` turns them back into the class on the other side. Texts say what
was found, what was expected, and which option changes a limit; they never hold internal names, paths or pids.
"""

from __future__ import annotations

from typing import ClassVar


class InferError(Exception):
    """A request that got a named error instead of an answer. Base of all errors below; on its own: `INTERNAL`."""

    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = ""  # tells errors of one code apart
    retry_after: float = 0.0  # seconds for which asking again is in vain; 0.0: not known


class BadInput(InferError):
    """The request itself is wrong: not a picture, a wrong shape, an unknown option, a malformed header."""

    code = "BAD_INPUT"


class UnknownRing(BadInput):
    """A request spoke of a ring that is not lent to this client, or no more."""

    reason: ClassVar[str] = "unknown_ring"


class UnknownModel(InferError):
    """No model of that name is served."""

    code = "UNKNOWN_MODEL"


class ResourceUnavailable(InferError):
    """A queue or a ring is full; the request was not admitted and may be sent again later."""

    code = "RESOURCE_UNAVAILABLE"

    def __init__(self, text: str = "", retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class QueueFull(ResourceUnavailable):
    """The model's queue, or this client's part of it, is full: that goes for every request, whatever its deadline."""

    reason: ClassVar[str] = "queue_full"


class DeadlineExceeded(InferError):
    """The deadline of the request passed before its answer was ready."""

    code = "DEADLINE_EXCEEDED"


class Unanswered(DeadlineExceeded):
    """A server that is reached has not answered in time: it is late, or stands still. What became of it is open."""

    reason: ClassVar[str] = "unanswered"


class Dropped(InferError):
    """A newer frame of the same source took this frame's place in the queue, or the request was cancelled."""

    code = "DROPPED"


class Poison(InferError):
    """The request killed two workers in a row and will not be tried again."""

    code = "POISON"


class WorkerLost(InferError):
    """The worker that held the request died and nobody could take the request over."""

    code = "WORKER_LOST"


class DeviceLost(InferError):
    """The device that computes a model answers nothing but errors from now on; a new process may find it well."""


class Unauthorized(InferError):
    """The client's key is unknown, or may not do this."""

    code = "UNAUTHORIZED"


class ServerUnavailable(InferError):
    """No server is reached at the address in time, its connection was lost, or it is stopping."""

    code = "SERVER_UNAVAILABLE"


class ServerStopping(ServerUnavailable):
    """The server is stopping and did not take the request: it was not worked on, and another server may take it.

    Any other ServerUnavailable leaves open what became of it.
    """

    reason: ClassVar[str] = "stopping"


class ModelRejected(InferError):
    """A model file that cannot be served: not ONNX, truncated, an unknown operator, shapes that do not fit."""

    code = "MODEL_REJECTED"


class ConfigError(Exception):
    """A configuration that cannot be used: an unknown key, a value out of range, too little shared memory."""


def error_for(code: str, text: str, reason: str = "", retry_after: float = 0.0) -> InferError:
    """The exception that stands for `code`; an unknown code (a newer server) becomes a plain `InferError`."""
    error = _BY_REASON.get(reason, _BY_CODE.get(code, InferError))(text)
    error.retry_after = retry_after
    return error


_BY_CODE: dict[str, type[InferError]] = {
    kind.code: kind
    for kind in (
        InferError,
        BadInput,
        UnknownModel,
        ResourceUnavailable,
        DeadlineExceeded,
        Dropped,
        Poison,
        WorkerLost,
        Unauthorized,
        ServerUnavailable,
        ModelRejected,
    )
}
_BY_REASON: dict[str, type[InferError]] = {kind.reason: kind for kind in (UnknownRing, ServerStopping, QueueFull)}
