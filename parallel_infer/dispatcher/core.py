"""What the dispatcher decides. No socket, no clock: messages and the time come in, messages go out through `send`.

Everything a job holds is freed in one of three places: `_answer_with_error` (what nobody works on), the return of a
lease, and `worker_down` (after the worker was reaped). A worker's lease is never taken away while the worker lives:
its row or output slot would be written by a zombie.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable

from parallel_infer.deadlines import Deadlines
from parallel_infer.dispatcher.jobs import Batch, Job, JobState
from parallel_infer.dispatcher.policy import Policy, Situation, Wait
from parallel_infer.dispatcher.served import Served
from parallel_infer.dispatcher.workers import Lease, Pool, Worker
from parallel_infer.errors import (
    DeadlineExceeded,
    Dropped,
    InferError,
    Poison,
    ResourceUnavailable,
    ServerUnavailable,
    UnknownModel,
)
from parallel_infer.messages import (
    Admit,
    CloseModel,
    Decoded,
    DecodeFailed,
    DecodeLease,
    InferLease,
    Inferred,
    KillWorker,
    ModelClosed,
    ModelPlan,
    PostJob,
    PostLease,
    Postprocessed,
    Refused,
    Released,
    SlotFate,
    WorkerReady,
)

Send = Callable[[bytes, object], None]
_SPLIT = 0.003  # seconds of postprocessing from which a batch is split over idle workers
_CREDIT = 2  # batches an instance may hold


class Core:
    """Every job, every model and every worker of the house, and what happens next."""

    def __init__(
        self, send: Send, policy: Callable[[ModelPlan], Policy], stage_limit: float, first_lease: int = 1
    ) -> None:
        self._send = send
        self._policy = policy
        self._stage_limit = stage_limit
        self._next_lease = first_lease  # lease numbers of two dispatchers of one run never meet
        self.gateway = b"gateway"
        self.supervisor = b"supervisor"
        self.models: dict[str, Served] = {}
        self.jobs: dict[int, Job] = {}
        self.decoders = Pool()
        self.postprocessors = Pool()
        self.leases: dict[int, Lease] = {}
        self.awaited: set[bytes] = set()  # workers of an earlier dispatcher that have not announced themselves
        self.draining = False
        self.counts: Counter[str] = Counter()
        self._deadlines: Deadlines[Job] = Deadlines()
        self._answers: deque[tuple[Served, Batch, list[int]]] = deque()  # batches that wait for postprocessing
        self._look_again: dict[str, float] = {}  # model -> when its policy wants to be asked again
        self._share_now = 0.0  # the share of the model served last
        self._queued_by_source: dict[str, Job] = {}

    # --- what comes in -----------------------------------------------------------------------------------------------

    def admit(self, message: Admit, now: float) -> None:
        """A new job, or one that an earlier dispatcher lost."""
        served = self.models.get(message.model)
        obstacle = self._obstacle(message, served, now)
        if obstacle is not None or served is None:
            self._refuse(message, *(obstacle or (InferError.code, "")))
            return
        job = Job(message)
        if message.source:
            self._queued_by_source[message.source] = job
        self.jobs[message.job] = job
        self._deadlines.add(message.job, message.deadline, job)
        if not served.queued and not served.decoding:
            # A model that was idle joins at the others' share: idleness earns no right to flood.
            served.share = max(served.share, self._share_now)
        served.jobs += 1
        served.enqueue(job)

    def _obstacle(self, message: Admit, served: Served | None, now: float) -> tuple[str, str] | None:
        """Why a job is not taken in: code and text; None when it is."""
        if self.draining:
            return ServerUnavailable.code, "the server is stopping"
        if served is None or served.closing:
            return UnknownModel.code, f"no model {message.model!r} is served"
        if message.deadline <= now:
            return DeadlineExceeded.code, "the deadline had passed on arrival"
        if message.source:
            self._replace_queued(message)
        if served.queued >= served.plan.queue_size:
            served.counts["rejected"] += 1
            limit = f"({served.plan.queue_size} jobs; option queue_size)"
            return ResourceUnavailable.code, f"the queue of {served.name!r} is full {limit}; try again later"
        return None

    def cancel(self, number: int) -> None:
        """The client has lost interest."""
        job = self.jobs.get(number)
        if job is not None and not job.answered:
            self._answer_with_error(job, Dropped.code, "cancelled by the client")

    def expect(self, workers: Iterable[str]) -> None:
        """Workers that live already: nothing is handed out before each has announced itself or is dead.

        They may still be writing where an earlier dispatcher told them to.
        """
        known = {worker.name for worker in self.workers()}
        self.awaited = {name for worker in workers if (name := worker.encode()) not in known}

    def worker_ready(self, name: bytes, message: WorkerReady) -> None:
        """A worker announces itself; it holds no lease."""
        self.awaited.discard(name)
        worker = Worker(name, message.stage, message.model)
        if message.stage == "infer":
            served = self.models.get(message.model)
            if served is None:
                return
            served.instances[name] = worker
            served.policy.learn(message.times)
        else:
            self._pool(message.stage).workers[name] = worker

    def decoded(self, message: Decoded, now: float) -> None:
        """A row is written."""
        lease = self._returned(message.lease, now, message.seconds)
        if lease is None:
            return
        self.decoders.learn(message.seconds)
        job, served = lease.jobs[0], self.models[lease.model]
        served.decode_seconds += 0.05 * (message.seconds - served.decode_seconds)
        served.decoding -= 1
        if job.answered:
            self._send(self.gateway, Released(job.admit.job))
            self._free_row(served, job)
            self._forget(job)
            return
        job.geometry = message.geometry
        job.decode_started = message.started
        job.decode_seconds = message.seconds
        job.decoded = now
        job.state = JobState.READY
        served.ready[job.row] = job

    def decode_failed(self, message: DecodeFailed, now: float) -> None:
        """A payload is no picture, or not what the model takes."""
        lease = self._returned(message.lease, now, 0.0)
        if lease is None:
            return
        job, served = lease.jobs[0], self.models[lease.model]
        served.decoding -= 1
        self._free_row(served, job)
        if job.answered:
            self._send(self.gateway, Released(job.admit.job))
            self._forget(job)
            return
        job.state = JobState.GONE
        self._answer_with_error(job, message.code, message.text)

    def inferred(self, message: Inferred, now: float) -> None:
        """A batch has run; its outputs lie in its slot."""
        lease = self._returned(message.lease, now, message.seconds)
        if lease is None or lease.batch is None:
            return
        served, batch = self.models[lease.model], lease.batch
        served.policy.observe(batch.size, message.seconds)
        served.counts["batches"] += 1
        served.counts["rows"] += batch.size
        served.counts["gathered"] += message.gathered
        served.batch_sizes[batch.size] += 1
        batch.inferred = message.started + message.seconds
        batch.shapes = message.shapes
        failed = {row.index: row for row in message.failed}
        positions = []
        for index, job in enumerate(lease.jobs):
            self._free_row(served, job)
            job.infer_started = message.started
            job.infer_seconds = message.seconds
            job.state = JobState.INFERRED
            if job.answered:
                batch.jobs[index] = None
                self._forget(job)
            elif index in failed:
                batch.jobs[index] = None
                job.state = JobState.GONE
                self._answer_with_error(job, failed[index].code, failed[index].text)
            else:
                positions.append(index)
        if positions:
            self._queue_answers(served, batch, positions)
        else:
            served.outputs.release(batch.slot, batch.generation)

    def postprocessed(self, message: Postprocessed, now: float) -> None:
        """All jobs of a lease were answered by their worker."""
        lease = self._returned(message.lease, now, message.seconds)
        if lease is None or lease.batch is None:
            return
        served = self.models[lease.model]
        self.postprocessors.learn(message.seconds / len(lease.jobs))
        for job in lease.jobs:
            if not job.answered:
                served.counts["answered"] += 1
            self._forget(job)
        self._release_share(served, lease.batch)

    def worker_down(self, name: bytes, now: float) -> None:
        """A worker is dead and reaped: what it held is given to others, once; a job that killed two is poison."""
        self.awaited.discard(name)
        worker = self._remove_worker(name)
        if worker is None:
            return
        for lease in list(worker.leases.values()):
            del self.leases[lease.number]
            served = self.models.get(lease.model)
            if served is not None:
                self._recover(worker, served, lease)

    def open_model(self, plan: ModelPlan) -> None:
        """Serve a model; its instances announce themselves."""
        self.models[plan.name] = Served(plan, self._policy(plan))

    def close_model(self, message: CloseModel) -> None:
        """Take no more jobs of a model."""
        served = self.models.get(message.model)
        if served is not None:
            served.closing = True

    def gateway_restarted(self) -> None:
        """A new gateway: jobs of the old one have nobody to answer to, and their payloads may be overwritten."""
        for job in list(self.jobs.values()):
            if not job.answered:
                self._answer_with_error(job, Dropped.code, "the gateway restarted")

    # --- what goes on ------------------------------------------------------------------------------------------------

    def pump(self, now: float) -> None:
        """Answer what has expired and hand out all the work that can be handed out."""
        for job in self._deadlines.expired(now):
            if not job.answered:
                self.models[job.admit.model].counts["expired"] += 1
                self._answer_with_error(job, DeadlineExceeded.code, "the deadline passed before the answer was ready")
        self._watch(now)
        if not self.awaited:
            if self._answers:
                self._lease_answers(now)
            self._lease_decoding(now)
            for served in self.models.values():
                if served.ready:
                    self._lease_batches(served, now)
        closed = [served for served in self.models.values() if served.closing and not served.jobs]
        for served in closed:
            del self.models[served.name]
            self._send(self.supervisor, ModelClosed(served.name))

    def next_timer(self) -> float | None:
        """When `pump` has to be called even if nothing comes in; None: never."""
        times = [limit for worker in self.workers() if (limit := worker.overdue_at(self._stage_limit)) is not None]
        times += self._look_again.values()
        deadline = self._deadlines.next()
        if deadline is not None:
            times.append(deadline)
        return min(times, default=None)

    def _watch(self, now: float) -> None:
        for worker in self.workers():
            limit = worker.overdue_at(self._stage_limit)
            if limit is not None and limit <= now:
                worker.doomed = True
                self.counts["killed"] += 1
                self._send(self.supervisor, KillWorker(worker.name.decode(), "did not return its work in time"))

    def _lease_decoding(self, now: float) -> None:
        """Hand queued jobs to decode workers: across models by share of the stage's time, within one by its order."""
        while True:
            eligible = [m for m in self.models.values() if m.queued and m.rows.free and m.head() is not None]
            if not eligible:
                return
            worker = self.decoders.pick()
            if worker is None:
                return
            served = min(eligible, key=lambda m: m.share)
            job = served.dequeue()
            self._unqueue_source(job)
            self._share_now = served.share
            served.share += served.decode_seconds / served.plan.weight
            row = served.rows.claim()
            if row is None:
                return
            job.row, job.generation, job.state = row, served.rows.generation(row), JobState.DECODING
            served.decoding += 1
            lease = self._lease(worker, served, [job], None, self.decoders.seconds, now)
            admit = job.admit
            self._send(
                worker.name,
                DecodeLease(lease.number, served.name, admit.ref, admit.kind, admit.tensors, admit.options, row),
            )

    def _lease_batches(self, served: Served, now: float) -> None:
        """Start as many batches of a model as its policy wants now."""
        self._look_again.pop(served.name, None)
        while served.ready and served.outputs.free:
            workers = [w for w in served.instances.values() if not w.doomed]
            idle = [w for w in workers if not w.leases]
            spare = [w for w in workers if 0 < len(w.leases) < _CREDIT]
            if not idle and not spare:
                return
            decision = served.policy.decide(self._situation(served, len(idle), len(spare), now))
            if isinstance(decision, Wait):
                if decision.seconds != math.inf:
                    self._look_again[served.name] = now + decision.seconds
                return
            self._start_batch(served, (idle or spare)[0], decision.size, now)

    def _situation(self, served: Served, idle: int, spare: int, now: float) -> Situation:
        oldest = next(iter(served.ready.values()))
        upstream = served.queued + served.decoding
        decoders = max(1, len(self.decoders.workers))
        earliest = min(job.admit.deadline for job in served.ready.values()) if upstream else oldest.admit.deadline
        return Situation(
            ready=len(served.ready),
            upstream=upstream,
            idle=idle,
            spare=spare,
            waited=now - oldest.decoded,
            next_row=served.decode_seconds / decoders,
            slack=earliest - now,
        )

    def _start_batch(self, served: Served, worker: Worker, size: int, now: float) -> None:
        jobs = served.next_batch(size)
        for job in [job for job in jobs if job.admit.deadline <= now]:
            jobs.remove(job)
            self._free_row(served, job)
            job.state = JobState.GONE
            served.counts["expired"] += 1
            self._answer_with_error(job, DeadlineExceeded.code, "the deadline passed before inference")
        slot = served.outputs.claim() if jobs else None
        if slot is None:
            return
        batch = Batch(jobs, slot, served.outputs.generation(slot))
        for job in jobs:
            job.state = JobState.INFERRING
        lease = self._lease(worker, served, jobs, batch, served.policy.expected(len(jobs)), now)
        self._send(worker.name, InferLease(lease.number, tuple(job.row for job in jobs), slot))

    def _queue_answers(self, served: Served, batch: Batch, positions: list[int]) -> None:
        """Queue a batch for postprocessing, in several shares where that is faster."""
        idle = self.postprocessors.idle()
        shares = 1
        if idle > 1 and self.postprocessors.seconds * len(positions) > _SPLIT:
            shares = min(idle, len(positions))
        size = math.ceil(len(positions) / shares)
        for first in range(0, len(positions), size):
            batch.leases += 1
            self._answers.append((served, batch, positions[first : first + size]))

    def _lease_answers(self, now: float) -> None:
        while self._answers:
            worker = self.postprocessors.pick()
            if worker is None:
                return
            served, batch, positions = self._answers.popleft()
            live = [index for index in positions if (job := batch.jobs[index]) is not None and not job.answered]
            for index in set(positions).difference(live):
                if (job := batch.jobs[index]) is not None:
                    self._forget(job)
                    batch.jobs[index] = None
            if not live:
                self._release_share(served, batch)
                continue
            jobs = [job for index in live if (job := batch.jobs[index]) is not None]
            for job in jobs:
                job.state = JobState.POSTPROCESSING
            lease = self._lease(worker, served, jobs, batch, self.postprocessors.seconds * len(jobs), now)
            lease.positions = live
            items = tuple(
                PostJob(job.admit.job, index, job.geometry, job.admit.options, job.admit.format, job.times())
                for job, index in zip(jobs, live, strict=True)
            )
            self._send(
                worker.name,
                PostLease(lease.number, served.name, batch.slot, batch.size, batch.inferred, batch.shapes, items),
            )

    # --- leases, errors and what is freed ----------------------------------------------------------------------------

    def _lease(
        self, worker: Worker, served: Served, jobs: list[Job], batch: Batch | None, expected: float, now: float
    ) -> Lease:
        lease = Lease(self._next_lease, worker, served.name, jobs, batch, expected)
        self._next_lease += 1
        self.leases[lease.number] = lease
        worker.take(lease, now)
        return lease

    def _returned(self, number: int, now: float, seconds: float) -> Lease | None:
        lease = self.leases.pop(number, None)
        if lease is not None:
            lease.worker.give_back(lease, now, seconds)
        return lease

    def _recover(self, worker: Worker, served: Served, lease: Lease) -> None:
        # Only the first lease was being worked on, but the rest may hold what the worker would have died of next.
        for job in lease.jobs:
            job.deaths += 1
        if worker.stage == "decode":
            job = lease.jobs[0]
            served.decoding -= 1
            self._free_row(served, job)
            if job.answered:
                self._send(self.gateway, Released(job.admit.job))
                self._forget(job)
            elif self._not_poison(job):
                served.enqueue(job)
        elif worker.stage == "infer" and lease.batch is not None:
            served.outputs.release(lease.batch.slot, lease.batch.generation)
            for job in lease.jobs:
                if job.answered:
                    self._free_row(served, job)
                    self._forget(job)
                elif self._not_poison(job):
                    job.state = JobState.READY
                    served.ready[job.row] = job
        elif lease.batch is not None:
            positions = []
            for job, index in zip(lease.jobs, lease.positions, strict=True):
                if job.answered or not self._not_poison(job):
                    lease.batch.jobs[index] = None
                    self._forget(job)
                else:
                    job.state = JobState.INFERRED
                    positions.append(index)
            for index in positions:  # alone, so that a job that kills its worker takes no other with it
                lease.batch.leases += 1
                self._answers.append((served, lease.batch, [index]))
            self._release_share(served, lease.batch)

    def _not_poison(self, job: Job) -> bool:
        if job.deaths < 2:
            return True
        if job.state == JobState.INFERRING:
            self._free_row(self.models[job.admit.model], job)
        job.state = JobState.GONE
        self._answer_with_error(job, Poison.code, "two workers died while they worked on this request")
        return False

    def _answer_with_error(self, job: Job, code: str, text: str) -> None:
        """Give a job its error now, and free what nobody works on; the rest is freed when its lease returns."""
        served = self.models[job.admit.model]
        if code not in (DeadlineExceeded.code, Dropped.code):
            served.counts["failed"] += 1
        job.answered = True
        decoding = job.state == JobState.DECODING
        self._refuse(job.admit, code, text, SlotFate.HELD if decoding else SlotFate.FREE)
        if job.state == JobState.QUEUED:
            served.queued -= 1
            self._unqueue_source(job)
        elif job.state == JobState.READY:
            del served.ready[job.row]
            self._free_row(served, job)
        if job.state in (JobState.QUEUED, JobState.READY, JobState.GONE):
            self._forget(job)

    def _refuse(self, admit: Admit, code: str, text: str, fate: SlotFate = SlotFate.FREE) -> None:
        self.counts[code] += 1
        self._send(self.gateway, Refused(admit.job, code, text, fate))

    def _forget(self, job: Job) -> None:
        job.state = JobState.GONE
        if self.jobs.pop(job.admit.job, None) is not None:
            self._deadlines.discard(job.admit.job, job.admit.deadline)
            self.models[job.admit.model].jobs -= 1

    def _free_row(self, served: Served, job: Job) -> None:
        if job.row >= 0:
            served.rows.release(job.row, job.generation)
            job.row = -1

    def _release_share(self, served: Served, batch: Batch) -> None:
        batch.leases -= 1
        if not batch.leases:
            served.outputs.release(batch.slot, batch.generation)

    def _replace_queued(self, message: Admit) -> None:
        older = self._queued_by_source.get(message.source)
        if older is not None and older.state == JobState.QUEUED and older.admit.model == message.model:
            self.models[message.model].counts["dropped"] += 1
            self._answer_with_error(older, Dropped.code, "a newer frame of the same source took its place")

    def _unqueue_source(self, job: Job) -> None:
        if job.admit.source and self._queued_by_source.get(job.admit.source) is job:
            del self._queued_by_source[job.admit.source]

    # --- workers -----------------------------------------------------------------------------------------------------

    def _pool(self, stage: str) -> Pool:
        if stage == "decode":
            return self.decoders
        if stage == "postprocess":
            return self.postprocessors
        raise InferError(f"no stage {stage!r}")

    def workers(self) -> Iterable[Worker]:
        """Every worker that has announced itself."""
        yield from self.cpu_workers()
        for served in self.models.values():
            yield from served.instances.values()

    def cpu_workers(self) -> Iterable[Worker]:
        """Those of decode and postprocess, which serve every model."""
        yield from self.decoders.workers.values()
        yield from self.postprocessors.workers.values()

    def _remove_worker(self, name: bytes) -> Worker | None:
        for workers in (
            self.decoders.workers,
            self.postprocessors.workers,
            *(served.instances for served in self.models.values()),
        ):
            if name in workers:
                return workers.pop(name)
        return None

    @property
    def busy(self) -> bool:
        """Whether any job is in the house."""
        return bool(self.jobs)
