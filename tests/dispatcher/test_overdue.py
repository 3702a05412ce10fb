"""When a worker counts as hung, asked with and without a time from which the answer is of no use."""

from __future__ import annotations

import math
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.dispatcher.workers import Lease, Worker
from parallel_infer.ipc.messages import WorkerReady

SECONDS = st.floats(0.0, 20.0)


@given(since=SECONDS, deadline=SECONDS, expected=st.floats(0.0, 2.0), limit=st.floats(0.1, 60.0), before=SECONDS)
def test_a_time_that_is_of_use_is_told_whatever_else_there_is_to_wait_for(since, deadline, expected, limit, before):
    worker = Worker(b"decode-0.1", WorkerReady("decode", "", {}))
    assert worker.overdue_at(limit) is None  # it holds nothing
    job = SimpleNamespace(admit=SimpleNamespace(deadline=deadline), deaths=0)
    worker.take(Lease(1, worker, None, [job], None, expected), since)
    overdue = worker.overdue_at(limit)
    assert overdue is not None
    assert since < overdue <= since + limit
    found = worker.overdue_at(limit, before)
    assert found in (None, overdue)
    assert min(before, found or math.inf) == min(before, overdue)  # so what waits for the sooner of both wakes as soon
