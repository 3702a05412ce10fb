"""No byte of one job gets into the answer of another, however long a worker stops in the middle of writing.

What keeps that is the fence: a row is used again only after its writer returned it or is dead. Without it the very same
schedules must be caught mixing jobs: else this test would show nothing.
"""

from __future__ import annotations

from parallel_infer.dispatcher.jobs import Job, JobState
from parallel_infer.dispatcher.ledger import Ledger
from tests.reliability.memory_rig import MemoryRig

SEEDS = range(12)


def run_all() -> list[MemoryRig]:
    rigs = [MemoryRig(seed) for seed in SEEDS]
    for rig in rigs:
        rig.run(600)
    return rigs


def test_no_job_gets_bytes_of_another():
    rigs = run_all()
    assert sum(rig.crossed for rig in rigs) == 0
    assert all(len(rig.replied) == rig.sent for rig in rigs)
    assert all(served.rows.free == served.rows.count for rig in rigs for served in rig.core.leasing.models.values())
    assert all(
        served.outputs.free == served.outputs.count for rig in rigs for served in rig.core.leasing.models.values()
    )
    # and the schedules were such that something could have gone wrong
    assert sum(rig.answers for rig in rigs) > 300
    assert sum(rig.expired for rig in rigs) > 50
    assert sum(rig.killed for rig in rigs) > 3


def test_without_the_fence_the_same_schedules_mix_jobs(monkeypatch):
    fenced = Ledger.fail

    def fail(self: Ledger, job: Job, code: str, text: str) -> None:
        if job.state == JobState.DECODING:
            self.free_row(job)  # at the deadline, with nothing but generations against its writer
        fenced(self, job, code, text)

    monkeypatch.setattr(Ledger, "fail", fail)
    assert sum(rig.crossed for rig in run_all()) > 0
