"""What the codes of errors are called by HTTP and by gRPC: one table for both doors."""

from __future__ import annotations

from typing import NamedTuple

from parallel_infer.errors import (
    BadInput,
    DeadlineExceeded,
    Dropped,
    ModelRejected,
    Poison,
    ResourceUnavailable,
    ServerUnavailable,
    Unauthorized,
    UnknownModel,
    WorkerLost,
)


class Status(NamedTuple):
    """An HTTP status code (RFC 9110) and the name of a gRPC status (grpc/status.h) that say the same."""

    http: int
    grpc: str


STATUSES: dict[str, Status] = {
    BadInput.code: Status(400, "INVALID_ARGUMENT"),
    ModelRejected.code: Status(400, "INVALID_ARGUMENT"),
    UnknownModel.code: Status(404, "NOT_FOUND"),
    ResourceUnavailable.code: Status(503, "UNAVAILABLE"),
    ServerUnavailable.code: Status(503, "UNAVAILABLE"),
    WorkerLost.code: Status(503, "UNAVAILABLE"),
    Dropped.code: Status(503, "UNAVAILABLE"),
    DeadlineExceeded.code: Status(504, "DEADLINE_EXCEEDED"),
    Poison.code: Status(422, "FAILED_PRECONDITION"),
    Unauthorized.code: Status(403, "PERMISSION_DENIED"),
}
INTERNAL = Status(500, "INTERNAL")
"""Of every other code."""
