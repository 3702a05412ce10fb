"""A dispatcher's core over real bytes: workers that write rows piece by piece, stop in the middle, and go on later."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from parallel_infer.dispatcher.core import Core
from parallel_infer.ipc.messages import (
    Admit,
    AnswerFormat,
    Decoded,
    DecodeLease,
    InferLease,
    Inferred,
    KillWorker,
    PayloadKind,
    PostLease,
    Postprocessed,
    Refused,
    SlotRef,
    WorkerReady,
)
from stages.pipeline import batching
from tests.dispatcher.core_rig import plan

PIECES = 4  # in which a row is written
STAGES = ("decode", "decode", "infer", "postprocess")


@dataclass
class Writer:
    """A worker: its leases, and the one it is in the middle of."""

    name: bytes
    stage: str
    leases: deque[DecodeLease | InferLease | PostLease] = field(default_factory=deque)
    work: Iterator[None] | None = None
    stopped: bool = False


class MemoryRig:
    """One model with few rows, a random schedule, and a check of every answer against what its job sent."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.now = 100.0
        one = plan(rows=6, outputs=3, queue_size=64)
        self.core = Core(self._deliver, batching, 30.0, cores=2, kept=0, first=1)
        self.rows = np.zeros((one.rows.slots, PIECES), np.int64)
        self.outputs = np.zeros((one.outputs.slots, one.max_batch, PIECES), np.int64)
        self.workers: dict[bytes, Writer] = {}
        self.replied: set[int] = set()
        self.sent = self.answers = self.crossed = self.expired = self.killed = 0
        self._names = 0
        self._condemned: list[bytes] = []
        self.core.open_model(one)
        for stage in STAGES:
            self._hire(stage)

    def run(self, steps: int) -> None:
        """A random schedule, then everybody works until nothing is left."""
        for _ in range(steps):
            self._random.choice((self._admit, self._work, self._work, self._work, self._stop, self._go_on))()
            self.now += self._random.choice((0.0, 0.001, 0.02))
            self._pump()
        for _ in range(5000):
            for worker in self.workers.values():
                worker.stopped = False
            self._work()
            self.now += 0.001
            self._pump()
            if not self.core.ledger.jobs:
                return
        raise AssertionError("work without end")

    def _pump(self) -> None:
        self.core.step(self.now)
        while self._condemned:  # killed and reaped, then replaced
            dead = self.workers.pop(self._condemned.pop())
            self.killed += 1
            self.core.worker_down(dead.name, self.now)
            self._hire(dead.stage)

    def _hire(self, stage: str) -> None:
        self._names += 1
        name = f"{stage}-{self._names}".encode()
        self.workers[name] = Writer(name, stage)
        self.core.worker_ready(name, WorkerReady(stage, "m" if stage == "infer" else "", {}))

    def _admit(self) -> None:
        self.sent += 1
        deadline = self.now + self._random.choice((0.05, 0.2, 30.0))
        ref = SlotRef("in", self.sent, 1, 1, 1)
        message = Admit(
            self.sent, "m", ref, PayloadKind.TENSORS, (), b"\x80", AnswerFormat.ARRAYS, self.now, deadline, 0, ""
        )
        self.core.admit(message, self.now)

    def _stop(self) -> None:
        worker = self._random.choice([*self.workers.values()])
        worker.stopped |= self._random.random() < 0.2

    def _go_on(self) -> None:
        if self._random.random() < 0.25:
            self._random.choice([*self.workers.values()]).stopped = False

    def _work(self) -> None:
        """One more piece of somebody's work."""
        for worker in self._random.sample([*self.workers.values()], len(self.workers)):
            if worker.stopped or not (worker.work or worker.leases):
                continue
            if worker.work is None:
                worker.work = self._do(worker.leases.popleft())
            if next(worker.work, "done") == "done":
                worker.work = None

    def _do(self, lease: DecodeLease | InferLease | PostLease) -> Iterator[None]:
        if isinstance(lease, DecodeLease):
            for piece in range(PIECES):
                yield
                self.rows[lease.row, piece] = lease.ref.index
            self.core.decoded(Decoded(lease.lease, (), self.now, 0.001), self.now)
        elif isinstance(lease, InferLease):
            for position, row in enumerate(lease.rows):
                yield
                self.outputs[lease.slot, position] = self.rows[row]
            self.core.inferred(Inferred(lease.lease, self.now, 0.001, 0, {}, ()), self.now)
        else:
            for job in lease.jobs:
                yield
                self._answer(job.job, self.outputs[lease.slot, job.index])
            self.core.postprocessed(Postprocessed(lease.lease, 0.001), self.now)

    def _answer(self, job: int, found: np.ndarray) -> None:
        """What a gateway does: the first reply counts."""
        if job not in self.replied:
            self.replied.add(job)
            self.answers += 1
            self.crossed += bool((found != job).any())

    def _deliver(self, peer: bytes, message: object) -> None:
        if isinstance(message, Refused) and message.job not in self.replied:
            self.replied.add(message.job)
            self.expired += message.code == "DEADLINE_EXCEEDED"
        elif isinstance(message, KillWorker):
            self._condemned.append(message.worker.encode())
        elif peer in self.workers:
            assert isinstance(message, DecodeLease | InferLease | PostLease)
            self.workers[peer].leases.append(message)
