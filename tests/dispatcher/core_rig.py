"""A dispatcher's core with everybody around it faked: workers that hold leases for as long as a test likes, a gateway
and a supervisor that write down what they are told. Every rule that must hold at all times is checked as it happens."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from parallel_infer.dispatcher.core import Core
from parallel_infer.dispatcher.policy import Policy
from parallel_infer.ipc.messages import (
    Admit,
    AnswerFormat,
    AnswersInDoubt,
    Decoded,
    DecodeFailed,
    DecodeLease,
    FailedRow,
    InferLease,
    Inferred,
    KillWorker,
    ModelClosed,
    ModelPlan,
    ModelRemoved,
    PayloadKind,
    PostLease,
    Postprocessed,
    Refused,
    Released,
    SessionOptions,
    SlotFate,
    SlotRef,
    WorkerReady,
)
from parallel_infer.model_spec import ModelSpec, TensorSpec
from parallel_infer.shm.ring import RingSpec
from stages.pipeline import batching

Lease = DecodeLease | InferLease | PostLease
LATE = 0.005  # seconds an expiry may be late


def plan(
    name: str = "m",
    *,
    rows: int = 16,
    outputs: int = 6,
    max_batch: int = 4,
    preferred: int = 0,
    fixed: int = 0,
    delay: float = 0.002,
    queue_size: int = 1000,
    weight: float = 1.0,
) -> ModelPlan:
    tensor = (TensorSpec("x", "float32", (1,)),)
    return ModelPlan(
        name=name,
        version=1,
        spec=ModelSpec(name=name, path="", task="tensor", family="tensor", inputs=tensor, outputs=tensor),
        rows=RingSpec(f"{name}-rows", rows, tensor),
        outputs=RingSpec(f"{name}-outputs", outputs, tensor),
        max_batch=fixed or max_batch,
        preferred_batch=preferred,
        fixed_batch=fixed,
        max_queue_delay=delay,
        queue_size=queue_size,
        instances=1,
        weight=weight,
        decode="exact",
        session=SessionOptions(),
    )


@dataclass
class FakeWorker:
    """Holds its leases in the order they came."""

    name: str
    stage: str
    model: str = ""
    leases: list[Lease] = field(default_factory=list)
    old: list[Lease] = field(default_factory=list)  # of a dispatcher that died


class Rig:
    """The core, its surroundings, and a clock that stands still until it is told."""

    def __init__(
        self,
        *plans: ModelPlan,
        stage_limit: float = 30.0,
        cores: int = 64,
        policy: Callable[[ModelPlan], Policy] = batching,
    ) -> None:
        self.now = 100.0
        self.plans = plans
        self.core = Core(self._deliver, policy, stage_limit, cores)
        self._new_core = lambda epoch: Core(self._deliver, policy, stage_limit, cores, first_lease=(epoch << 40) + 1)
        self.epoch = 1
        self.workers: dict[str, FakeWorker] = {}
        self.dead: set[str] = set()
        self.admitted: dict[int, Admit] = {}
        self.refused: dict[int, Refused] = {}
        self.answered: Counter[int] = Counter()
        self.inferred: Counter[int] = Counter()
        self.held: set[int] = set()
        self.doubtful: set[int] = set()
        self.kills: list[str] = []
        self.closed: list[str] = []
        self.decoded_order: list[int] = []
        self._numbers = itertools.count(1)
        self._names = itertools.count(1)
        self._rows: dict[tuple[str, int], int] = {}  # who the row is for
        for one in plans:
            self.core.open_model(one)

    # --- what a test does ---------------------------------------------------------------------------------------------

    def worker(self, stage: str, model: str = "", times: dict[int, float] | None = None) -> FakeWorker:
        """A new worker that announces itself."""
        worker = FakeWorker(f"{stage}-{next(self._names)}", stage, model)
        self.workers[worker.name] = worker
        self.core.worker_ready(worker.name.encode(), WorkerReady(stage, model, times or {}))
        return worker

    def admit(
        self,
        model: str = "m",
        *,
        timeout: float = 1000.0,
        priority: int = 0,
        source: str = "",
        number: int | None = None,
    ) -> int:
        """Admit a job; its number."""
        number = next(self._numbers) if number is None else number
        message = Admit(
            number,
            model,
            SlotRef("in", number, 1, 1, 1),
            PayloadKind.PICTURE,
            (),
            b"\x80",
            AnswerFormat.ARRAYS,
            self.now,
            self.now + timeout,
            priority,
            source,
        )
        self.admitted[number] = message
        self.core.admit(message, self.now)
        return number

    def step(self) -> None:
        self.core.step(self.now)
        self.check()

    def pass_time(self, seconds: float) -> None:
        """Time passes, and the dispatcher wakes up as often as it wants to."""
        end = self.now + seconds
        while (timer := self.core.next_timer()) is not None and timer < end:
            self.now = max(self.now + 1e-6, timer)
            self.step()
        self.now = max(self.now, end)
        self.step()

    def stand_still(self, seconds: float) -> None:
        """Nobody runs for a while, the dispatcher as little as anybody else."""
        self.now += seconds
        self.step()

    def finish(self, worker: FakeWorker, seconds: float = 0.001, *, fail: Iterable[int] = ()) -> None:
        """The worker does its first lease and reports; `fail` names jobs whose row or payload is bad."""
        lease, bad = worker.leases.pop(0), set(fail)
        if isinstance(lease, DecodeLease):
            job = self._rows[lease.model, lease.row]
            if job in bad:
                del self._rows[lease.model, lease.row]
                self.core.decode_failed(DecodeFailed(lease.lease, "BAD_INPUT", "no picture"), self.now)
            else:
                geometry = (float(job), 0.0, 1.0, 1.0, 0.0, 0.0)
                self.core.decoded(Decoded(lease.lease, geometry, self.now, seconds), self.now)
        elif isinstance(lease, InferLease):
            jobs = [self._rows.pop((worker.model, row)) for row in lease.rows]
            failed = tuple(FailedRow(at, "BAD_INPUT", "bad row") for at, job in enumerate(jobs) if job in bad)
            self.core.inferred(Inferred(lease.lease, self.now, seconds, 0, {}, failed), self.now)
        else:
            for job in lease.jobs:
                self.answered[job.job] += 1
            self.core.postprocessed(Postprocessed(lease.lease, seconds), self.now)

    def kill(self, worker: FakeWorker) -> None:
        """The worker dies and is reaped."""
        del self.workers[worker.name]
        self.dead.add(worker.name)
        awaited = not self.settled
        self.core.worker_down(worker.name.encode(), self.now)
        if awaited:
            self._admit_again()

    def replace(self, worker: FakeWorker) -> FakeWorker:
        """The worker dies and another takes its place."""
        self.kill(worker)
        return self.worker(worker.stage, worker.model)

    def restart(self) -> None:
        """The dispatcher dies; its successor is told which workers live. They still do what they were given."""
        self.epoch += 1
        self.core = self._new_core(self.epoch)
        for one in self.plans:
            self.core.open_model(one)
        for worker in self.workers.values():
            worker.old += worker.leases
            worker.leases = []
        self.core.expect(self.workers, self.now)
        self._admit_again()

    def announce(self, worker: FakeWorker) -> None:
        """A worker is through with its old leases; what it reports of them means nothing to the new dispatcher."""
        for lease in worker.old:
            if isinstance(lease, PostLease):
                self.answered.update(job.job for job in lease.jobs)
                self.core.postprocessed(Postprocessed(lease.lease, 0.001), self.now)
            elif isinstance(lease, DecodeLease):
                self.core.decoded(Decoded(lease.lease, (), self.now, 0.001), self.now)
            else:
                self.core.inferred(Inferred(lease.lease, self.now, 0.001, 0, {}, ()), self.now)
        worker.old = []
        self.core.worker_ready(worker.name.encode(), WorkerReady(worker.stage, worker.model, {}))
        self._admit_again()

    def _admit_again(self) -> None:
        """What the gateway does once a new dispatcher greets it: nobody works on old leases any more."""
        if self.core.awaited:
            return
        self.held.clear()
        self._rows.clear()
        self.core.gateway_restarted()
        for job, message in self.admitted.items():
            if job not in self.refused and job not in self.answered:
                self.core.admit(message, self.now)

    @property
    def settled(self) -> bool:
        """Whether the present dispatcher has heard of everybody."""
        return not self.core.awaited

    def run_dry(self, seconds: float = 0.001) -> None:
        """Let everybody work until nothing is left to do."""
        for _ in range(3000):
            self.step()
            busy = [worker for worker in self.workers.values() if worker.leases]
            if not busy:
                timer = self.core.next_timer()
                if timer is None or not self.core.ledger.jobs:
                    return
                self.now = max(self.now + 1e-4, timer)
                continue
            self.now += seconds
            for worker in busy:
                self.finish(worker, seconds)
        raise AssertionError("work without end")

    def jobs_of(self, worker: FakeWorker) -> list[list[int]]:
        """The jobs of each lease that a worker holds."""
        return [self._jobs(worker.model, lease) for lease in worker.leases]

    # --- what must hold -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """After every step: the books agree with who holds what."""
        for name, served in self.core.leasing.models.items():
            used = sum(self._row_in_use(name, row) for row in range(served.rows.count))
            assert served.rows.count - served.rows.free == used
            assert served.queued >= 0
            assert served.decoding == sum(
                isinstance(lease, DecodeLease) and lease.model == name for lease in self._all_leases()
            )
        assert sum(len(worker.leases) for worker in self.workers.values()) == len(self.core.leasing.leases)

    def check_drained(self) -> None:
        """At the end: everybody has exactly one reply, and everything is free."""
        replied = self.answered.keys() | self.refused.keys()
        assert replied == self.admitted.keys()
        assert not self.core.ledger.jobs
        assert not self.core.leasing.leases
        assert not self.held, "slots of refused jobs that nobody released"
        for served in self.core.leasing.models.values():
            assert served.rows.free == served.rows.count
            assert served.outputs.free == served.outputs.count
            assert (served.jobs, served.queued, served.decoding, served.ready) == (0, 0, 0, {})

    def _all_leases(self) -> list[Lease]:
        return [lease for worker in self.workers.values() for lease in worker.leases]

    def _row_in_use(self, model: str, row: int) -> bool:
        """Whether a live worker holds the row, or its job waits for a batch."""
        if row in self.core.leasing.models[model].ready:
            return True
        return any(self._holds_row(worker, model, row) for worker in self.workers.values())

    @staticmethod
    def _holds_row(worker: FakeWorker, model: str, row: int) -> bool:
        for lease in worker.leases:
            if isinstance(lease, DecodeLease) and (lease.model, lease.row) == (model, row):
                return True
            if isinstance(lease, InferLease) and worker.model == model and row in lease.rows:
                return True
        return False

    def _jobs(self, model: str, lease: Lease) -> list[int]:
        if isinstance(lease, DecodeLease):
            return [self._rows[lease.model, lease.row]]
        if isinstance(lease, InferLease):
            return [self._rows[model, row] for row in lease.rows]
        return [job.job for job in lease.jobs]

    # --- what the core says -------------------------------------------------------------------------------------------

    def _deliver(self, peer: bytes, message: object) -> None:
        name = peer.decode()
        if isinstance(message, ModelRemoved):
            assert not any(
                lease.model == message.model for lease in self._all_leases() if not isinstance(lease, InferLease)
            )
        elif name in self.workers:
            assert isinstance(message, DecodeLease | InferLease | PostLease)
            self._on_lease(self.workers[name], message)
        elif isinstance(message, Refused):
            self._on_refused(message)
        elif isinstance(message, Released):
            assert message.job in self.held, "released without having been held"
            self.held.remove(message.job)
        elif isinstance(message, AnswersInDoubt):
            assert all(self.answered[job] for job in message.jobs), "in doubt about a job that was never done"
            self.doubtful.update(message.jobs)
        elif isinstance(message, KillWorker):
            self.kills.append(message.worker)
        elif isinstance(message, ModelClosed):
            self.closed.append(message.model)
        else:
            raise AssertionError(f"{message} to {name}")

    def _on_refused(self, message: Refused) -> None:
        assert message.job in self.admitted
        assert message.job not in self.refused, "refused twice"
        self.refused[message.job] = message
        reading = any(
            isinstance(lease, DecodeLease) and lease.ref.index == message.job
            for worker in self.workers.values()
            for lease in worker.leases
        )
        assert (message.slot == SlotFate.HELD) == reading, "only a payload that a worker may read is held"
        if message.slot == SlotFate.HELD:
            self.held.add(message.job)

    def _on_lease(self, worker: FakeWorker, lease: Lease) -> None:
        assert not any(other.old for other in self.workers.values()), "a lease while an old one may still be written"
        if isinstance(lease, DecodeLease):
            assert worker.stage == "decode"
            for other in self.workers.values():
                assert not self._holds_row(other, lease.model, lease.row), "a row with two holders"
            job = lease.ref.index
            assert job not in self.refused, "decoding what has its error already"
            assert self.admitted[job].deadline > self.now - LATE
            self._rows[lease.model, lease.row] = job
            self.decoded_order.append(job)
        elif isinstance(lease, InferLease):
            assert worker.stage == "infer"
            self._check_batch(worker, lease)
        else:
            assert worker.stage == "postprocess"
            self._check_answers(lease)
        worker.leases.append(lease)

    def _check_batch(self, worker: FakeWorker, lease: InferLease) -> None:
        served = self.core.leasing.models[worker.model]
        assert 1 <= len(lease.rows) <= served.plan.max_batch
        assert len(set(lease.rows)) == len(lease.rows)
        for row in lease.rows:
            job = self._rows[worker.model, row]
            assert self.admitted[job].deadline > self.now, "inferred after its deadline"
            assert job not in self.refused, "inferring what has its error already"
            self.inferred[job] += 1
            for other in self.workers.values():
                assert not self._holds_row(other, worker.model, row), "a row with two holders"
        for other in self.workers.values():
            for held in other.leases:
                same = isinstance(held, InferLease) and other.model == worker.model
                same |= isinstance(held, PostLease) and held.model == worker.model
                assert not (same and held.slot == lease.slot), "an output slot with two holders"  # type: ignore[union-attr]

    def _check_answers(self, lease: PostLease) -> None:
        for job in lease.jobs:
            assert job.job not in self.refused, "answering what has its error already"
            assert job.geometry[0] == job.job, "somebody else's geometry"
        for worker in self.workers.values():
            for held in worker.leases:
                if isinstance(held, InferLease) and worker.model == lease.model:
                    assert held.slot != lease.slot, "outputs answered from a slot that is being written"
                if isinstance(held, PostLease) and (held.model, held.slot) == (lease.model, lease.slot):
                    assert not {job.index for job in held.jobs} & {job.index for job in lease.jobs}


def crew(rig: Rig, *models: str) -> tuple[FakeWorker, FakeWorker]:
    """One decode worker and one postprocess worker, and an instance of each model; the first instance, the decoder."""
    decoder = rig.worker("decode")
    rig.worker("postprocess")
    instances = [rig.worker("infer", model) for model in models or ("m",)]
    return instances[0], decoder


def codes(rig: Rig) -> dict[int, str]:
    return {job: message.code for job, message in rig.refused.items()}
