"""A dispatcher's core with everybody around it faked: workers that hold leases for as long as a test likes, a gateway
and a supervisor that write down what they are told. Every rule that must hold at all times is checked as it happens."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from parallel_infer.crops import PicturePart
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
    Recall,
    Recalled,
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
    epoch: int = 1  # of the dispatcher that it has announced itself to
    leases: list[Lease] = field(default_factory=list)
    recalled: set[int] = field(default_factory=set)
    old: list[Lease] = field(default_factory=list)  # of a dispatcher that died
    kept: dict[int, int] = field(default_factory=dict)  # pictures, and bytes of each
    last: int = 0  # the picture that was decoded last


@dataclass(frozen=True)
class Flight:
    """A lease on its way from one worker to another."""

    carrier: str
    address: str
    lease: PostLease


class Rig:
    """The core, its surroundings, and a clock that stands still until it is told."""

    def __init__(
        self,
        *plans: ModelPlan,
        stage_limit: float = 30.0,
        cores: int = 64,
        policy: Callable[[ModelPlan], Policy] = batching,
        onward: bool = False,
        kept: int = 0,
        at_once: int = 1,
    ) -> None:
        """`kept` is how many bytes of pictures a decode worker keeps.

        With `onward` workers hand leases on; what they say arrives when a test lets it (`arrive`, `hear`).
        """
        self.now = 100.0
        self.plans = plans
        self.at_once = at_once  # batches that an infer worker may have begun
        self.onward = onward
        self.core = Core(self._deliver, policy, stage_limit, cores, kept, (1 << 40) + 1)
        self._kept = kept
        self.picture_size = 1  # bytes
        self.decodes: Counter[int] = Counter()  # of each picture of several jobs
        self.flights: list[Flight] = []
        self.reports: list[tuple[str, Inferred, int]] = []  # who says it, and the lease that was handed on
        self.recalls: list[tuple[str, int]] = []  # workers that have not said yet that a lease is recalled
        self.limbo: dict[int, tuple[str, int]] = {}  # rows of batches of which it is not known how they ended
        self._new_core = lambda epoch: Core(self._deliver, policy, stage_limit, cores, kept, (epoch << 40) + 1)
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
        worker.epoch = self.epoch
        self.core.worker_ready(worker.name.encode(), self._ready(worker, times or {}))
        return worker

    def _ready(self, worker: FakeWorker, times: dict[int, float]) -> WorkerReady:
        address = worker.name if self.onward else ""
        return WorkerReady(worker.stage, worker.model, times, address=address, at_once=self.at_once)

    def admit(
        self,
        model: str = "m",
        *,
        timeout: float = 1000.0,
        priority: int = 0,
        source: str = "",
        number: int | None = None,
        part: PicturePart | None = None,
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
            part,
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
                told = self._pixels(worker, lease)
                self.core.decoded(Decoded(lease.lease, geometry, self.now, seconds, *told), self.now)
        elif isinstance(lease, InferLease):
            jobs = [self._rows[worker.model, row] for row in lease.rows]
            failed = tuple(FailedRow(at, "BAD_INPUT", "bad row") for at, job in enumerate(jobs) if job in bad)
            message = Inferred(lease.lease, self.now, seconds, 0, {}, failed)
            if lease.onward is not None and not failed:
                self._hand_on(worker, lease)
                self.reports.append((worker.name, message, lease.onward.lease.lease))
            else:
                self.core.inferred(message, self.now)
        else:
            self._check_slot(lease)
            for job in lease.jobs:
                self.answered[job.job] += 1
            self.limbo.pop(lease.lease, None)
            self.core.postprocessed(Postprocessed(lease.lease, seconds), self.now)

    def _pixels(self, worker: FakeWorker, lease: DecodeLease) -> tuple[int, bool]:
        """Bytes in which a job's picture is kept, and whether it was there already."""
        for number in lease.done:
            worker.kept.pop(number, None)
        if lease.part is None:
            worker.last = 0
            return 0, False
        picture = lease.part.picture
        reused = picture in (*worker.kept, worker.last)
        if picture not in worker.kept:
            worker.last = picture
        if lease.keep and picture not in worker.kept and sum(worker.kept.values()) + self.picture_size <= self._kept:
            worker.kept[picture] = self.picture_size
        self.decodes[picture] += not reused
        return worker.kept.get(picture, 0), reused

    def _hand_on(self, worker: FakeWorker, lease: InferLease) -> None:
        assert lease.onward is not None
        following = lease.onward.lease
        if worker.epoch == self.epoch:
            self.limbo[following.lease] = worker.model, lease.rows[0]
        self.flights.append(Flight(worker.name, lease.onward.address, following))

    def arrive(self, flight: Flight) -> None:
        """A lease reaches the worker that it was handed on to, if that lives."""
        self.flights.remove(flight)
        worker = self.workers.get(flight.address)
        if worker is None or flight.lease.lease >> 40 != worker.epoch or flight.lease.lease in worker.recalled:
            return
        if worker.epoch != self.epoch:
            worker.old.append(flight.lease)
        else:
            self._on_lease(worker, flight.lease)

    def hear(self) -> bool:
        """The dispatcher hears the first of what is under way to it; False where nothing is."""
        if self.reports:
            _, message, following = self.reports.pop(0)
            self.limbo.pop(following, None)
            self.core.inferred(message, self.now)
            return True
        for name, number in self.recalls:
            if not any(lease.lease == number for lease in self.workers[name].leases):  # else it does that first
                self.recalls.remove((name, number))
                self.limbo.pop(number, None)
                self.core.recalled(Recalled(number), self.now)
                return True
        return False

    def kill(self, worker: FakeWorker, *, lost: Callable[[], bool] = lambda: True) -> None:
        """The worker dies and is reaped; `lost` says of each lease that it was handing on whether it gets lost."""
        del self.workers[worker.name]
        self.dead.add(worker.name)
        for lease in worker.leases:
            if isinstance(lease, InferLease) and lease.onward is not None and lease.onward.address in self.workers:
                self.limbo[lease.onward.lease.lease] = worker.model, lease.rows[0]
            elif isinstance(lease, PostLease) and not any(lease.lease == after for _, _, after in self.reports):
                self.limbo.pop(lease.lease, None)
        self.flights = [flight for flight in self.flights if flight.carrier != worker.name or not lost()]
        for _, _, number in [report for report in self.reports if report[0] == worker.name]:
            if number not in self.core.leasing.leases:  # nobody is left who could know
                self.limbo.pop(number, None)
        self.reports = [report for report in self.reports if report[0] != worker.name]
        for _, number in [recall for recall in self.recalls if recall[0] == worker.name]:
            self.limbo.pop(number, None)
        self.recalls = [recall for recall in self.recalls if recall[0] != worker.name]
        awaited = not self.settled
        self.core.worker_down(worker.name.encode(), self.now)
        if awaited:
            self._admit_again()

    def replace(self, worker: FakeWorker, *, lost: Callable[[], bool] = lambda: True) -> FakeWorker:
        """The worker dies and another takes its place."""
        self.kill(worker, lost=lost)
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
        self.reports, self.recalls, self.limbo = [], [], {}
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
                if lease.onward is not None:
                    self._hand_on(worker, lease)
                self.core.inferred(Inferred(lease.lease, self.now, 0.001, 0, {}, ()), self.now)
        worker.old = []
        worker.kept.clear()
        worker.epoch = self.epoch
        self.core.worker_ready(worker.name.encode(), self._ready(worker, {}))
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
            for flight in list(self.flights):
                self.arrive(flight)
            if not busy and not self.hear():
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
        held = {lease.lease for lease in self._all_leases()}
        under_way = {message.lease for _, message, _ in self.reports} | {number for _, number in self.recalls}
        under_way |= {flight.lease.lease for flight in self.flights} | self.limbo.keys()
        under_way |= {after.lease.lease for lease in self._all_leases() if (after := getattr(lease, "onward", None))}
        assert held <= self.core.leasing.leases.keys() <= held | under_way

    def check_drained(self) -> None:
        """At the end: everybody has exactly one reply, and everything is free."""
        replied = self.answered.keys() | self.refused.keys()
        assert replied == self.admitted.keys()
        assert not self.core.ledger.jobs
        assert not self.core.leasing.leases
        assert not self.core.ledger.pictures
        assert not self.held, "slots of refused jobs that nobody released"
        for served in self.core.leasing.models.values():
            assert served.rows.free == served.rows.count
            assert served.outputs.free == served.outputs.count
            assert (served.jobs, served.queued, served.decoding, served.ready) == (0, 0, 0, {})

    def _all_leases(self) -> list[Lease]:
        return [lease for worker in self.workers.values() for lease in worker.leases]

    def _row_in_use(self, model: str, row: int) -> bool:
        """Whether a live worker holds the row, or its job waits for a batch."""
        if row in self.core.leasing.models[model].ready or (model, row) in self.limbo.values():
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
        elif isinstance(message, Recall):
            self.recalls.append((name, message.lease))
            if not any(lease.lease == message.lease for lease in self.workers[name].leases):
                self.workers[name].recalled.add(message.lease)
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
            was_known = lease.inferred > 0  # else it was handed on before the dispatcher heard of its end
            assert not was_known or job.job not in self.refused, "answering what has its error already"
            assert job.geometry[0] == job.job, "somebody else's geometry"
        self._check_slot(lease)

    def _check_slot(self, lease: PostLease) -> None:
        """Nobody else has the outputs that are being answered."""
        for worker in self.workers.values():
            for held in worker.leases:
                if isinstance(held, InferLease) and worker.model == lease.model:
                    assert held.slot != lease.slot, "outputs answered from a slot that is being written"
                if (
                    held is not lease
                    and isinstance(held, PostLease)
                    and (held.model, held.slot) == (lease.model, lease.slot)
                ):
                    assert not {job.index for job in held.jobs} & {job.index for job in lease.jobs}


def crew(rig: Rig, *models: str) -> tuple[FakeWorker, FakeWorker]:
    """One decode worker and one postprocess worker, and an instance of each model; the first instance, the decoder."""
    decoder = rig.worker("decode")
    rig.worker("postprocess")
    instances = [rig.worker("infer", model) for model in models or ("m",)]
    return instances[0], decoder


def codes(rig: Rig) -> dict[int, str]:
    return {job: message.code for job, message in rig.refused.items()}
