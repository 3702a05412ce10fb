"""Whether a job is over: what waiting for one, here or at a server, tells."""

from __future__ import annotations

from enum import Enum


class JobStatus(Enum):
    """`DONE` says that there is an answer or an error to fetch; `PENDING` that the wait ended first."""

    PENDING = "pending"
    DONE = "done"
