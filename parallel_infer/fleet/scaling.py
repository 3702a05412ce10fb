"""How many servers there should be: as many as the jobs under way ask for. Ray Serve's controller calls this."""

from __future__ import annotations

import math
from typing import Any

PENDING = "pending_jobs"
"""The measure that each node reports: jobs that its server has admitted and not answered."""


def pending_jobs(context: Any) -> tuple[int, dict[str, Any]]:
    """A policy of Serve: servers for all pending jobs, with `target_ongoing_requests` of them each.

    Serve applies bounds and delays, and averages what each node said over the last seconds. Without any report, such as
    while Serve starts anew, the number stays what it is.
    """
    reports = (context.aggregated_metrics or {}).get(PENDING)
    if not reports:
        return context.target_num_replicas, {}
    return wanted(sum(reports.values()), context.config.target_ongoing_requests), {}


def wanted(pending: float, target: float) -> int:
    """Servers for so many jobs, at least one; an average a little above a whole number asks for no further one."""
    return max(1, math.ceil(round(pending / target, 2)))
