"""Workers as the dispatcher sees them: what each holds, how much more it may take, and when it is overdue."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING

from parallel_infer.dispatcher.estimate import learned
from parallel_infer.dispatcher.jobs import Batch, Job
from parallel_infer.ipc.messages import WorkerReady

if TYPE_CHECKING:
    from parallel_infer.dispatcher.model_queue import ModelQueue

_FINE = 0.0003  # seconds of work below which a wake-up costs more than the work
_AHEAD = 0.002  # seconds of work a worker may hold, so that it never waits for its next lease
_DEPTH = (2, 32)  # leases a worker may hold
_GRACE = 0.4  # seconds after a job's deadline until its worker counts as hung
_DOUBTFUL = 128  # answers that may still be under way in a worker that dies
_SLOW = 10.0  # times the usual work time that a lease may take before its worker counts as hung
_SLOW_FLOOR = 0.85  # seconds
_PATIENCE = 5.0  # seconds after which the usual work time alone decides, however far off the deadline is


class Lease:
    """Work handed to one worker: a job to decode, a batch to infer, or jobs to postprocess."""

    __slots__ = (
        "batch",
        "begun",
        "carrier",
        "deadline",
        "expected",
        "jobs",
        "number",
        "positions",
        "served",
        "suspect",
        "worker",
    )

    def __init__(
        self, number: int, worker: Worker, served: ModelQueue, jobs: list[Job], batch: Batch | None, expected: float
    ) -> None:
        self.number = number
        self.worker = worker
        self.served = served
        self.jobs = jobs
        self.batch = batch
        self.positions: list[int] = []  # of the jobs in the batch (postprocess)
        self.deadline = min(job.admit.deadline for job in jobs)
        self.expected = expected
        self.suspect = any(job.deaths for job in jobs)  # may have killed a worker
        self.carrier: Worker | None = None  # the worker that hands it on
        self.begun = True  # False: the carrier has not said yet that it did


class Worker:
    """One worker process."""

    __slots__ = (
        "address",
        "answered",
        "at_once",
        "busy_seconds",
        "cores",
        "done",
        "doomed",
        "head_since",
        "leases",
        "model",
        "name",
        "reserved",
        "stage",
    )

    def __init__(self, name: bytes, ready: WorkerReady) -> None:
        self.name = name
        self.address = ready.address  # where it takes leases from other workers; empty: nowhere
        self.cores = ready.cores if ready.stage == "infer" else 1  # that it works on; 0: another device computes
        self.at_once = ready.at_once  # batches that an infer worker may have begun
        self.stage = ready.stage
        self.model = ready.model  # of an infer worker; others serve all models
        self.leases: dict[int, Lease] = {}  # in the order they were handed out
        self.reserved: dict[int, Lease] = {}  # that another worker hands on to it in a while
        self.answered: deque[int] = deque(maxlen=_DOUBTFUL)  # the jobs it answered last
        self.head_since = 0.0  # since when the first of them is being worked on
        self.doomed = False  # to be killed: takes nothing more
        self.done = 0
        self.busy_seconds = 0.0

    def take(self, lease: Lease, now: float) -> None:
        """Hand the worker a lease."""
        if not self.leases:
            self.head_since = now
        self.leases[lease.number] = lease

    def drop(self, lease: Lease, now: float) -> None:
        """The worker has nothing to do with a lease any more."""
        if self.reserved.pop(lease.number, None) is None:
            del self.leases[lease.number]
            self.head_since = now

    def give_back(self, lease: Lease, now: float, seconds: float) -> None:
        """The worker returned a lease after `seconds` of work."""
        self.drop(lease, now)
        self.done += 1
        self.busy_seconds += seconds

    def open(self, room: int) -> bool:
        """Whether it may take one more lease, when it may hold `room`."""
        held = len(self.leases)
        return held < room and not self.doomed and not (held and next(iter(self.leases.values())).suspect)

    def overdue_at(self, stage_limit: float, before: float = math.inf) -> float | None:
        """When this worker counts as hung unless it returns its first lease; None while it holds none.

        None, too, where that is surely not `before`: what is asked after every message costs nothing then.
        """
        if not self.leases or self.doomed or self.head_since + min(stage_limit, _SLOW_FLOOR) >= before:
            return None
        lease = next(iter(self.leases.values()))
        patience = self.head_since + max(_SLOW_FLOOR, _SLOW * lease.expected)
        late = min(lease.deadline + _GRACE, self.head_since + _PATIENCE)
        return min(self.head_since + stage_limit, max(late, patience))


class Pool:
    """The workers of a CPU stage; they serve every model."""

    def __init__(self) -> None:
        self.workers: dict[bytes, Worker] = {}
        self.seconds = 0.001  # usual work time of one job, learned

    def learn(self, seconds: float) -> None:
        """Take one job's work time into account."""
        self.seconds = learned(self.seconds, seconds, 0.05)

    def depth(self) -> int:
        """How many leases a worker may hold: two, and more where each is over in microseconds."""
        low, high = _DEPTH
        return max(low, min(high, int(_AHEAD / max(self.seconds, 1e-6))))

    def has_room(self, least: int) -> bool:
        """Whether any worker may take one more lease, where each may hold at least so many."""
        room = max(least, self.depth())
        return any(worker.open(room) for worker in self.workers.values())

    def pick(self, job: Job, names: Collection[bytes] = ()) -> Worker | None:
        """The worker that should get this job (or jobs like it), of `names` if there are any; None: all have enough.

        A suspect is worked on alone, with nothing behind it: whoever is blamed for a death was at work.
        """
        room = 1 if job.deaths else self.depth()
        open_workers = [worker for worker in self.workers.values() if worker.open(room)]
        if names:
            open_workers = [worker for worker in open_workers if worker.name in names]
        if not open_workers:
            return None
        if self.seconds < _FINE:  # one that is awake already takes it sooner than one that has to wake up
            return max(open_workers, key=lambda worker: len(worker.leases))
        return min(open_workers, key=lambda worker: len(worker.leases))

    def waiting(self) -> Worker | None:
        """One that holds nothing, expects nothing, and takes leases from other workers."""
        for worker in self.workers.values():
            if worker.address and not worker.leases and not worker.reserved and not worker.doomed:
                return worker
        return None

    def idle(self) -> int:
        """How many workers hold nothing."""
        return sum(1 for worker in self.workers.values() if not worker.leases and not worker.doomed)
