"""Faults from inside, for processes that are started with this folder in PYTHONPATH. Never a part of a server.

SIGUSR1: busy for ever in one C call that never lets go of the GIL. With CHAOS_FENCE=off in the environment, the
dispatcher frees the row of a job at its deadline although a worker may still write it: the negative control.
"""

from __future__ import annotations

import collections
import itertools
import os
import signal


def _hang(number: int, frame: object) -> None:
    collections.deque(itertools.repeat(None), maxlen=0)


def _remove_fence() -> None:
    from parallel_infer.dispatcher.jobs import Job, JobState
    from parallel_infer.dispatcher.ledger import Ledger

    fenced = Ledger.fail

    def fail(self: Ledger, job: Job, code: str, text: str) -> None:
        if job.state == JobState.DECODING:
            self.free_row(job)
        fenced(self, job, code, text)

    Ledger.fail = fail  # type: ignore[method-assign]


signal.signal(signal.SIGUSR1, _hang)
if os.environ.get("CHAOS_FENCE") == "off":
    _remove_fence()
