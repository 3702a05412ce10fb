"""The ledger: every job in flight, what it holds, and the one place where that is freed.

Every job gets exactly one reply: its answer from a postprocess worker, or an error from here. A job that has its reply
may still hold a row or a part of an output slot while a worker works on it; those are freed when the lease returns or
its worker was reaped, never before: a zombie could still be writing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from parallel_infer.deadlines import Deadlines
from parallel_infer.dispatcher.jobs import Batch, Job, JobState
from parallel_infer.dispatcher.model_queue import ModelQueue
from parallel_infer.dispatcher.pictures import SharedPictures
from parallel_infer.errors import DeadlineExceeded, Dropped, InferError
from parallel_infer.ipc.messages import Admit, Refused, Released, SlotFate

Send = Callable[[bytes, object], None]


class Ledger:
    """All jobs and their ends."""

    def __init__(self, send: Send, pictures: SharedPictures) -> None:
        self.send = send
        self.pictures = pictures
        self.gateway = b"gateway"
        self.jobs: dict[int, Job] = {}
        self.counts: Counter[str] = Counter()
        self.deadlines: Deadlines[Job] = Deadlines()
        self._queued_by_source: dict[str, Job] = {}

    def enter(self, job: Job) -> None:
        """A job is in flight from now on."""
        admit = job.admit
        self.jobs[admit.job] = job
        self.deadlines.add(admit.job, admit.deadline, job)
        job.served.jobs += 1
        if admit.source:
            self._queued_by_source[admit.source] = job
        if admit.part is not None:
            self.pictures.enter(job)

    def forget(self, job: Job) -> None:
        """A job holds nothing any more and has its reply."""
        job.state = JobState.GONE
        if self.jobs.pop(job.admit.job, None) is not None:
            self.deadlines.discard(job.admit.job, job.admit.deadline)
            job.served.jobs -= 1
            if job.admit.part is not None:
                self.pictures.leave(job)

    def turn_away(self, admit: Admit, error: InferError) -> None:
        """Tell the gateway that a job is not taken in."""
        self.counts[error.code] += 1
        self.send(
            self.gateway,
            Refused(admit.job, error.code, str(error), SlotFate.FREE, error.reason, error.retry_after),
        )

    def refuse(self, admit: Admit, code: str, text: str, fate: SlotFate = SlotFate.FREE) -> None:
        """Tell the gateway that a job gets an error."""
        self.counts[code] += 1
        self.send(self.gateway, Refused(admit.job, code, text, fate))

    def fail(self, job: Job, code: str, text: str) -> None:
        """Give a job its error now, and free what nobody works on; the rest is freed when its lease returns."""
        served = job.served
        if code not in (DeadlineExceeded.code, Dropped.code):
            served.counts["failed"] += 1
        job.answered = True
        self.refuse(job.admit, code, text, SlotFate.HELD if job.state == JobState.DECODING else SlotFate.FREE)
        if job.state == JobState.QUEUED:
            served.dequeue(job)
            self.left_queue(job)
        elif job.state == JobState.READY:
            del served.ready[job.row]
            self.free_row(job)
        if job.state in (JobState.QUEUED, JobState.READY, JobState.GONE):
            self.forget(job)

    def fail_freed(self, job: Job, code: str, text: str) -> None:
        """Give a job its error that holds nothing any more."""
        job.state = JobState.GONE
        self.fail(job, code, text)

    def expire(self, job: Job, text: str) -> None:
        """The deadline of a job has passed."""
        job.served.counts["expired"] += 1
        self.fail(job, DeadlineExceeded.code, text)

    def decoding_ended(self, job: Job) -> bool:
        """Nobody reads the job's payload any more; whether the job still wants an answer."""
        job.served.decoding -= 1
        if not job.answered:
            return True
        self.send(self.gateway, Released(job.admit.job))
        self.free_row(job)
        self.forget(job)
        return False

    def free_row(self, job: Job) -> None:
        """The job's row may be used again."""
        if job.row >= 0:
            job.served.rows.release(job.row, job.generation)
            job.row = -1

    def release_part(self, served: ModelQueue, batch: Batch) -> None:
        """One lease or queued part of a batch's outputs is done; the last one frees the slot."""
        batch.leases -= 1
        if not batch.leases:
            served.outputs.release(batch.slot, batch.generation)

    def replace_queued(self, admit: Admit) -> None:
        """A newer frame takes the place of one of the same source that still waits."""
        older = self._queued_by_source.get(admit.source)
        if older is not None and older.state == JobState.QUEUED and older.admit.model == admit.model:
            older.served.counts["dropped"] += 1
            self.fail(older, Dropped.code, "a newer frame of the same source took its place")

    def queue_again(self, job: Job) -> None:
        """A decoded job goes back to its queue; a newer frame of its source may replace it again."""
        job.served.enqueue(job)
        if job.admit.source:
            self._queued_by_source.setdefault(job.admit.source, job)

    def left_queue(self, job: Job) -> None:
        """The job cannot be replaced any more."""
        if job.admit.source and self._queued_by_source.get(job.admit.source) is job:
            del self._queued_by_source[job.admit.source]
