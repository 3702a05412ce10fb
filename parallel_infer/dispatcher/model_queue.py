"""A model as the dispatcher serves it: its queue, its rows, its outputs, its instances, and its counts."""

from __future__ import annotations

import math
from collections import Counter

from parallel_infer.dispatcher.job_queue import Waiting
from parallel_infer.dispatcher.jobs import Batch, Job, JobState
from parallel_infer.dispatcher.policy import Policy
from parallel_infer.dispatcher.progress import Progress
from parallel_infer.dispatcher.workers import Worker
from parallel_infer.errors import DeadlineExceeded, InferError, QueueFull, ResourceUnavailable, WorkerLost
from parallel_infer.ipc.messages import OWN_PRIORITY, Admit, Inferred, ModelPlan
from parallel_infer.shm.ring import Slots

_AGED = 0.8  # part of its time that the oldest in the queue will have needed, from which the queue counts as too long
_BACKLOG = 0.5  # part of a new job's time that those before it take even at the best pace, below which it does not
_KIN = 1.5  # times a new job's timeout, up to which the age of another one tells what it would meet
_RELIEF = 1 / 8  # part of the queue that has to be free again before more is asked for
_LONGEST_RELIEF = 1.0  # seconds
_SUSPECT_BATCH = 1  # a job that may have killed a worker runs alone


class ModelQueue:
    """One model as the dispatcher sees it: its queue, its slots, its workers and its figures."""

    def __init__(self, plan: ModelPlan, policy: Policy) -> None:
        self.plan = plan
        self.name = plan.name
        self.key = plan.key
        self.failure = ""  # why it is unavailable, while it is
        self.policy = policy
        self.rows = Slots(plan.rows.slots)
        self.outputs = Slots(plan.outputs.slots)
        self.instances: dict[bytes, Worker] = {}
        self.queue = Waiting()
        self.fans: Counter[tuple[str, ...]] = Counter()  # queued first jobs of fans, by the models that are asked
        self.cutting = 0  # queued jobs whose pictures something will be cut out of
        self.decoding = 0
        self.ready: dict[int, Job] = {}  # row -> job, in the order they became ready
        self.closing = False
        self.jobs = 0  # in flight
        self.virtual_time = 0.0  # seconds of CPU stages used, divided by the weight: the fair order's clock
        self.decode_seconds = 0.002  # usual, learned
        self.progress = Progress()
        self.counts: Counter[str] = Counter()
        self.batch_sizes: Counter[int] = Counter()

    @property
    def queued(self) -> int:
        """Jobs that wait for decoding."""
        return len(self.queue)

    @property
    def inferring(self) -> int:
        """Jobs in batches that instances hold."""
        return sum(len(lease.jobs) for worker in self.instances.values() for lease in worker.leases.values())

    @property
    def is_busy(self) -> bool:
        """Whether enough is decoded, or about to be, for the next batch of each instance."""
        return len(self.ready) + self.decoding >= self.policy.target * max(1, len(self.instances))

    @property
    def on_processor(self) -> bool:
        """Whether the cores compute the model, not another device."""
        return any(worker.cores for worker in self.instances.values())

    def ran(self, batch: Batch, message: Inferred, now: float) -> None:
        """Count a batch and learn from it; not from one that had the cores to itself, which is another time."""
        size = batch.size
        if not batch.alone:
            self.policy.observe(size, message.seconds, message.cost)
        self.progress.ran(size, bool(self.queue or self.ready), now)
        self.counts["batches"] += 1
        self.counts["rows"] += size
        self.counts["gathered"] += message.gathered
        self.batch_sizes[size] += 1

    def obstacle(self, message: Admit, now: float) -> InferError | None:
        """Why a job is not taken in; None when it is."""
        if self.failure:
            return WorkerLost(f"model {self.name!r} is unavailable: {self.failure}")
        if message.deadline <= now:
            return DeadlineExceeded("the deadline had passed on arrival")
        if self.queued >= self.plan.queue_size and message.priority < OWN_PRIORITY:
            self.counts["rejected"] += 1
            limit = f"({self.plan.queue_size} jobs; option queue_size)"
            text = f"the queue of {self.name!r} is full {limit}; try again later"
            return QueueFull(text, self.relief(now))
        if message.priority < OWN_PRIORITY and (seconds := self.hopeless(message, now)):
            self.counts["rejected"] += 1
            wait = f"about {seconds:.1f} s of work come first"
            text = f"{wait}: the request would miss its deadline; try again later"
            return ResourceUnavailable(text, max(self.relief(now), seconds - (message.deadline - now)))
        return None

    def hopeless(self, message: Admit, now: float) -> float:
        """Seconds of work before a new job that would only wait for its deadline; 0 where it may be in time.

        What is refused at once costs nobody anything; let in, it would push others past their deadlines. But none must
        be refused that would have been in time. So two things must be seen: the oldest job before it has nearly used
        up as much time as this one has, and the work before it is much even at the best pace of the last seconds. The
        first is a fact, and is gone with the jobs that a stall made old; the second no stall moves.
        """
        best = self.progress.best(now)
        slack = message.deadline - now
        if not best or self.jobs <= _BACKLOG * slack * best:  # too few, wherever in the queue its place would be
            return 0.0
        under_way = self.jobs - self.queued
        needs = self.needs(under_way)
        seconds = (under_way + self.queue.before(message.priority, message.deadline, now + needs)) / best
        if seconds > slack:
            return seconds
        oldest = self.queue.first(now + needs)
        age = 0.0 if oldest is None else _age(oldest.admit, message, now)
        return seconds if seconds > _BACKLOG * slack and age + needs > _AGED * slack else 0.0

    def relief(self, now: float) -> float:
        """Seconds until an eighth of the queue's places are free again, as fast as jobs usually go."""
        places = math.ceil(_RELIEF * self.plan.queue_size)
        best = self.progress.best(now)
        return min(_LONGEST_RELIEF, places / best if best else self.needs(places))

    def needs(self, before: int) -> float:
        """Seconds until a waiting job is inferred that comes behind `before` others, as batches usually go."""
        target = self.policy.target
        whole = self.policy.expected(target)
        own = whole
        if target > 1:  # its own batch may be a smaller one
            own = min(whole, self.policy.expected(max(1, min(target, self.jobs - self.inferring))))
        return own + whole * before / (max(1, len(self.instances)) * target)

    def enqueue(self, job: Job) -> None:
        """Queue a job behind those of higher priority or earlier deadline."""
        job.state = JobState.QUEUED
        self.queue.add(job)
        if job.admit.part is not None:
            self.cutting += bool(job.admit.part.selections)
            if job.admit.part.together:
                self.fans[job.admit.part.together] += 1

    def head(self, now: float) -> Job | None:
        """The job whose turn it is: the first that can be in time. Where none can, a worker takes the best chance.

        Those passed over stay where they are, and have their turn if there is time after all. None: a row is worth
        more to whoever comes next, and the instances have enough to do until then.
        """
        target, instances = self.policy.target, max(1, len(self.instances))
        first = self.queue.head
        if first is None or self.jobs <= len(self.instances) * target:  # nobody is in another's way
            return first
        under_way = self.jobs - self.queued
        # The usual case without a look at the batches that are under way: `needs` is never more than this.
        most = self.policy.expected(target) * (1 + under_way / (instances * target))
        if first.admit.deadline >= now + most:
            return first
        job = self.queue.first(now + self.needs(under_way))
        if job is None and len(self.ready) + self.decoding < len(self.instances) * self.policy.target:
            return self.queue.last
        return job

    def dequeue(self, job: Job) -> None:
        """Take a job off the queue, wherever it stands."""
        self.queue.remove(job)
        if job.admit.part is not None:
            self.cutting -= bool(job.admit.part.selections)
            if fan := job.admit.part.together:
                self.fans[fan] -= 1
                if not self.fans[fan]:
                    del self.fans[fan]

    def late_rows(self, now: float) -> list[Job]:
        """Ready jobs that would be late in the next batch, where there are others that would not."""
        if self.queued + self.decoding + len(self.ready) <= self.policy.target:
            return []
        late = now + self.needs(self.inferring)
        found = [job for job in self.ready.values() if job.admit.deadline < late]
        if len(found) == len(self.ready) and self.queue.first(late) is None:
            return []
        return found

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


def _age(other: Admit, message: Admit, now: float) -> float:
    """How long a job has waited, where that tells what a new one would meet: it comes first, and is in like case."""
    alike = other.deadline - other.received <= _KIN * (message.deadline - message.received)
    first = other.priority >= message.priority and other.deadline <= message.deadline
    return now - other.received if alike and first else 0.0
