"""Where a job stands, as `wait` tells it."""

from __future__ import annotations

from enum import Enum


class JobStatus(Enum):
    """DONE: it has its answer or its error, or was cancelled. PENDING: not yet."""

    PENDING = "pending"
    DONE = "done"
