"""A model as the dispatcher serves it: its queue, its rows, its outputs, its instances, and its counts."""

from __future__ import annotations

import heapq
from collections import Counter
from itertools import count

from parallel_infer.dispatcher.jobs import Batch, Job, JobState
from parallel_infer.dispatcher.policy import Policy
from parallel_infer.dispatcher.workers import Worker
from parallel_infer.messages import Admit, ModelPlan
from parallel_infer.ring import Slots

_SLACK = 64  # answered jobs that may stand in a queue
_LEARN = 0.2  # weight of a new measurement
_MARGIN = 1.1  # how much longer jobs may take than lately, before one that seems to be in time is late
_SUSPECT_BATCH = 1  # a job that may have killed a worker runs alone


class Served:
    """One model's share of the house."""

    def __init__(self, plan: ModelPlan, policy: Policy) -> None:
        self.plan = plan
        self.name = plan.name
        self.key = plan.key
        self.failure = ""  # why it is unavailable, while it is
        self.policy = policy
        self.rows = Slots(plan.rows.slots)
        self.outputs = Slots(plan.outputs.slots)
        self.instances: dict[bytes, Worker] = {}
        self.queued = 0
        self.decoding = 0
        self.ready: dict[int, Job] = {}  # row -> job, in the order they became ready
        self.closing = False
        self.jobs = 0  # in the house
        self.share = 0.0  # seconds of CPU stages used, divided by the weight: the fair order's clock
        self.decode_seconds = 0.002  # usual, learned
        self.pace = 0.0  # seconds per job while others wait, learned; 0: not known
        self._ran_at = 0.0  # when a batch was last done
        self._backlog = False  # whether jobs waited then
        self.counts: Counter[str] = Counter()
        self.batch_sizes: Counter[int] = Counter()
        self._queue: list[tuple[int, float, int, Job]] = []
        self._sequence = count()

    def ran(self, batch: Batch, seconds: float, gathered: int, now: float) -> None:
        """Count a batch and learn from it; not from one that had the cores to itself, which is another time."""
        size = batch.size
        if not batch.alone:
            self.policy.observe(size, seconds)
        if self._ran_at and self._backlog:
            pace = (now - self._ran_at) / size
            self.pace += _LEARN * (pace - self.pace) if self.pace else pace
        self._ran_at, self._backlog = now, bool(self.queued or self.ready)
        self.counts["batches"] += 1
        self.counts["rows"] += size
        self.counts["gathered"] += gathered
        self.batch_sizes[size] += 1

    def interrupted(self) -> None:
        """A worker has died: the time until the next batch is done says nothing about the usual pace."""
        self._ran_at = 0.0

    def is_hopeless(self, message: Admit, now: float) -> bool:
        """Whether a new job would only wait for its deadline, as fast as jobs were done lately.

        What is refused at once costs nobody anything. Let in, it would push others past their deadlines.
        """
        slack = (message.deadline - now) / _MARGIN - self.policy.expected(1)
        if not self.pace or self.jobs <= self.plan.instances * self.plan.max_batch or self.jobs * self.pace <= slack:
            return False
        ours = -message.priority, message.deadline
        before = sum(1 for entry in self._queue if entry[:2] <= ours and entry[3].state == JobState.QUEUED)
        return (self.jobs - self.queued + before) * self.pace > slack

    def enqueue(self, job: Job) -> None:
        """Queue a job behind those of higher priority or earlier deadline."""
        job.state = JobState.QUEUED
        self.queued += 1
        if len(self._queue) > 2 * self.queued + _SLACK:  # most were answered where they stood: let them go
            self._queue = [entry for entry in self._queue if entry[3].state == JobState.QUEUED and entry[3] is not job]
            heapq.heapify(self._queue)
        heapq.heappush(self._queue, (-job.admit.priority, job.admit.deadline, next(self._sequence), job))

    def head(self) -> Job | None:
        """The job whose turn it is; jobs answered meanwhile are passed over."""
        while self._queue and self._queue[0][3].state != JobState.QUEUED:
            heapq.heappop(self._queue)
        return self._queue[0][3] if self._queue else None

    def dequeue(self) -> Job:
        """Take the head off the queue."""
        job = heapq.heappop(self._queue)[3]
        self.queued -= 1
        return job

    def next_batch(self, size: int) -> list[Job]:
        """The jobs of the next batch, in row order: the oldest ready ones, as neighbours where that costs nothing.

        A job whose worker died runs alone, so that it cannot take others with it. The oldest lets a whole batch of
        neighbours pass it once: the rows beside it are with another instance, and will be neighbours by then.
        """
        oldest = next(iter(self.ready.values()))
        if oldest.deaths:
            size = _SUSPECT_BATCH
        first = last = oldest.row
        while last - first + 1 < size and self._innocent(last + 1):
            last += 1
        while last - first + 1 < size and self._innocent(first - 1):
            first -= 1
        neighbours = last - first + 1
        at_the_end = first == 0 or last == self.rows.count - 1  # the next rows are neighbours again
        elsewhere = None
        if neighbours < size and not oldest.passed_over and not oldest.deaths:
            elsewhere = self._neighbours(size)
        if elsewhere is not None:
            oldest.passed_over = True
            chosen = [self.ready[row] for row in range(elsewhere, elsewhere + size)]
        elif neighbours * 2 > size or neighbours == len(self.ready) or at_the_end:
            chosen = [self.ready[row] for row in range(first, last + 1)]
        else:
            chosen = [job for job in self.ready.values() if job is oldest or not job.deaths][:size]
            chosen.sort(key=lambda job: job.row)
        for job in chosen:
            del self.ready[job.row]
        return chosen

    def _neighbours(self, size: int) -> int | None:
        """The first of `size` neighbouring rows that are ready, from the start of the ring; None: there are none."""
        length = 0
        for row in range(self.rows.count):
            length = length + 1 if self._innocent(row) else 0
            if length == size:
                return row - size + 1
        return None

    def _innocent(self, row: int) -> bool:
        job = self.ready.get(row)
        return job is not None and not job.deaths
