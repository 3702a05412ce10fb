"""Recovery: what a dead worker held goes to others, and who killed two workers is found out."""

from __future__ import annotations

from parallel_infer.dispatcher.jobs import Batch, Job, JobState
from parallel_infer.dispatcher.ledger import Ledger
from parallel_infer.dispatcher.scheduler import Leasing
from parallel_infer.dispatcher.workers import Lease, Worker
from parallel_infer.errors import Poison

_DEADLY = 2  # workers that a job may kill before it is poison


class Recovery:
    """Takes back the leases of workers that are dead and reaped, and so write no more."""

    def __init__(self, ledger: Ledger, leasing: Leasing) -> None:
        self._ledger = ledger
        self._leasing = leasing

    def recover(self, worker: Worker, now: float) -> None:
        """Give what it held to others, once; a job that killed two workers is poison."""
        self._ledger.pictures.lost(worker.name)
        for served in self._leasing.models.values():
            served.progress.restart()
        for lease in [lease for lease in self._leasing.leases.values() if lease.carrier is worker]:
            self._leasing.recall(lease, now)
        for lease in list(worker.reserved.values()):
            if lease.batch is not None:
                self._leasing.forgo(lease.batch, now)
        for number, lease in enumerate(worker.leases.values()):
            del self._leasing.leases[lease.number]
            # An infer worker reports each batch at once: it had not begun more than `at_once`. The others hold reports
            # back a moment, so that any of their leases may be the deadly one; alone, next time, it is found out.
            if lease.begun and (number < worker.at_once or worker.stage != "infer"):
                for job in lease.jobs:
                    job.deaths += 1
            self.give_again(lease)

    def give_again(self, lease: Lease) -> None:
        """Others get what this lease was about; nobody works on it any more."""
        if lease.batch is None:
            self._recover_decoding(lease)
        elif lease.worker.stage == "infer" or not lease.begun:
            self._recover_batch(lease, lease.batch)
        else:
            self._recover_answers(lease, lease.batch)

    def _recover_decoding(self, lease: Lease) -> None:
        job = lease.jobs[0]
        if self._ledger.decoding_ended(job):
            self._ledger.free_row(job)
            if job.deaths >= _DEADLY:
                self._poison(job)
            else:
                lease.served.enqueue(job)

    def _recover_batch(self, lease: Lease, batch: Batch) -> None:
        if batch.onward is not None:  # it may have run, and be answered: its way goes on there
            batch.onward = None
            return
        if lease.jobs[0].state == JobState.GONE:
            return  # it is answered
        lease.served.outputs.release(batch.slot, batch.generation)
        for job in lease.jobs:
            if not job.answered and job.deaths < _DEADLY:
                job.state = JobState.READY
                lease.served.ready[job.row] = job
                continue
            self._ledger.free_row(job)
            if job.answered:
                self._ledger.forget(job)
            else:
                self._poison(job)

    def _recover_answers(self, lease: Lease, batch: Batch) -> None:
        for job, index in zip(lease.jobs, lease.positions, strict=True):
            if not job.answered and job.deaths < _DEADLY:
                job.state = JobState.INFERRED
                # Alone, so that a job that kills its worker takes no other with it.
                self._leasing.queue_part(lease.served, batch, [index])
                continue
            batch.jobs[index] = None
            if job.answered:
                self._ledger.forget(job)
            else:
                self._poison(job)
        self._ledger.release_part(lease.served, batch)

    def _poison(self, job: Job) -> None:
        self._ledger.fail_freed(job, Poison.code, "two workers died while they worked on this request")
