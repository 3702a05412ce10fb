"""Leasing: who gets which work next."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from parallel_infer.dispatcher.core_load import Load
from parallel_infer.dispatcher.holding import Holding, with_rows
from parallel_infer.dispatcher.jobs import Batch, Job, JobState
from parallel_infer.dispatcher.ledger import Ledger
from parallel_infer.dispatcher.model_queue import ModelQueue
from parallel_infer.dispatcher.policy import Situation, Wait
from parallel_infer.dispatcher.recording import Recording
from parallel_infer.dispatcher.workers import Lease, Pool, Worker
from parallel_infer.ipc.messages import (
    Decoded,
    DecodeFailed,
    DecodeLease,
    InferLease,
    Onward,
    PostJob,
    PostLease,
    Recall,
)

_SPLIT = 0.003  # seconds of postprocessing from which a batch is split over idle workers
_CROPS = 32  # leases that a worker may hold when it is given what is cut out of a picture that it has
_CREDIT = 2  # batches an instance may hold


class Leasing:
    """Every lease, and the rules by which work becomes one."""

    def __init__(self, ledger: Ledger, cores: int, first: int) -> None:
        self._ledger = ledger
        self._cores = cores
        self._load = Load()
        self._next = first
        self.models: dict[str, ModelQueue] = {}
        self.leases: dict[int, Lease] = {}
        self.decoders = Pool()
        self.postprocessors = Pool()
        self.virtual_now = 0.0  # the virtual time of the model served last: where idle models join
        self.look_again: dict[str, float] = {}  # model -> when its policy wants to be asked again
        self.recording: Recording | None = None  # while somebody wants to know what workers do
        self.holding = Holding(ledger.pictures, self.models)
        self._answers: deque[tuple[ModelQueue, Batch, list[int]]] = deque()  # outputs that wait for postprocessing

    def hand_out(self, now: float) -> None:
        """Hand out all the work that can be handed out."""
        if self._answers:
            self._lease_answers(now)
        self._lease_decoding(now)
        for served in self.models.values():
            self.look_again.pop(served.key, None)
            if served.ready:
                self._lease_batches(served, now)

    def returned(self, number: int, now: float, started: float, seconds: float) -> Lease | None:
        """A worker returned a lease; None where it is none of ours (an earlier dispatcher's)."""
        lease = self.leases.pop(number, None)
        if lease is not None:
            lease.worker.give_back(lease, now, seconds)
            self._load.add(lease.worker.cores * seconds, now)
            if self.recording is not None:
                self.recording.returned(lease, started, seconds)
        return lease

    def decoding_returned(self, message: Decoded | DecodeFailed, now: float) -> Lease | None:
        """The same of a decode worker, which may have kept the picture's pixels for other jobs."""
        lease = self.returned(message.lease, now, message.started, message.seconds)
        if lease is not None and lease.jobs[0].admit.part is not None:
            kept = message.kept if isinstance(message, Decoded) else 0
            self._ledger.pictures.decoded(lease.jobs[0], lease.worker.name, kept)
            if isinstance(message, Decoded):
                lease.served.counts["reused" if message.reused else "decoded"] += 1
        return lease

    def timers(self) -> Iterator[float]:
        """When something is to be handed out though nothing has come in."""
        yield from self.look_again.values()
        if self.holding.until < math.inf:
            yield self.holding.until

    def batches(self, served: ModelQueue) -> set[Batch]:
        """The batches of a model whose outputs lie in a slot, or are about to."""
        held = {lease.batch for lease in self.leases.values() if lease.served is served and lease.batch is not None}
        return held | {batch for owner, batch, _ in self._answers if owner is served}

    def queue_answers(self, served: ModelQueue, batch: Batch, positions: list[int]) -> None:
        """Queue a batch's outputs for postprocessing, in several shares where that is faster."""
        idle = self.postprocessors.idle()
        shares = 1
        if idle > 1 and self.postprocessors.seconds * len(positions) > _SPLIT:
            shares = min(idle, len(positions))
        size = math.ceil(len(positions) / shares)
        for first in range(0, len(positions), size):
            self.queue_part(served, batch, positions[first : first + size])

    def queue_part(self, served: ModelQueue, batch: Batch, positions: list[int]) -> None:
        """Queue some of a batch's outputs for one worker."""
        batch.leases += 1
        self._answers.append((served, batch, positions))

    def _lease_decoding(self, now: float) -> None:
        """Queued jobs to decode workers: across models by virtual time, within one by its own order."""
        self.holding.until = math.inf
        while self.decoders.has_room(_CROPS if len(self._ledger.pictures) else 0):  # usually not: most turns end here
            eligible = [m for m in self.models.values() if m.queue and m.rows.free]
            heads = [(m.virtual_time, m.key, m, head) for m in eligible if (head := m.head(now)) is not None]
            for *_, served, head in sorted(heads):
                if self.holding.holds(served, head, self.decoders.workers, now):
                    continue
                worker = self._decoder_for(head)
                if worker is not None:
                    self._lease_picture(head, worker, now)
                    break
            else:
                return

    def _decoder_for(self, job: Job) -> Worker | None:
        """A job goes to the worker that has its picture's pixels, as long as that has not very much to do."""
        part, pictures = job.admit.part, self._ledger.pictures
        if part is None or job.deaths:
            return self.decoders.pick(job)
        worker = self.decoders.workers.get(pictures.holder(job))
        if worker is not None and worker.open(_CROPS):
            return worker
        return self.decoders.pick(job, pictures.with_room(self.decoders.workers) if part.selections else ())

    def _lease_picture(self, head: Job, worker: Worker, now: float) -> None:
        """A job, and all others about the same picture that can have a row: it is decoded once for all of them.

        One that may have killed a worker is worked on alone.
        """
        jobs, keep, pictures = [head], False, self._ledger.pictures
        if head.admit.part is not None:
            jobs += () if head.deaths else with_rows(pictures.queued_with(head), head)
            keep = pictures.hold(jobs, worker.name)
        for job in jobs:
            self._lease_head(job.served, job, worker, now, keep)

    def _lease_head(self, served: ModelQueue, job: Job, worker: Worker, now: float, keep: bool) -> None:
        served.dequeue(job)
        self._ledger.left_queue(job)
        self.virtual_now = served.virtual_time
        served.virtual_time += served.decode_seconds / served.plan.weight
        row = served.rows.claim()
        if row is None:
            raise AssertionError("a model without a free row was eligible")
        job.row, job.generation, job.state = row, served.rows.generation(row), JobState.DECODING
        served.decoding += 1
        number = self._lease(worker, served, [job], None, self.decoders.seconds, now).number
        admit = job.admit
        told = served.key, admit.ref, admit.kind, admit.tensors, admit.options, row, admit.part, keep
        self._ledger.send(worker.name, DecodeLease(number, *told, self._ledger.pictures.done(worker.name)))

    def _lease_batches(self, served: ModelQueue, now: float) -> None:
        """Start as many batches of a model as its policy wants now."""
        while served.ready and served.outputs.free:
            workers = [w for w in served.instances.values() if not w.doomed]
            idle = [w for w in workers if not w.leases]
            spare = [w for w in workers if w.leases and w.open(_CREDIT)]
            if not idle and not spare:
                return
            self._put_back_late(served, now)
            if not served.ready or (not idle and next(iter(served.ready.values())).deaths):
                return  # a suspect waits for an instance that has nothing else
            decision = served.policy.decide(self._situation(served, len(idle), len(spare), now))
            if isinstance(decision, Wait):
                if decision.seconds != math.inf:
                    self.look_again[served.key] = now + decision.seconds
                return
            self._start_batch(served, (idle or spare)[0], decision.size, now)

    def _put_back_late(self, served: ModelQueue, now: float) -> None:
        """Give the rows of jobs that would be late to others; they wait on, for when there is time after all."""
        late = served.late_rows(now)
        for job in late:
            del served.ready[job.row]
            self._ledger.free_row(job)
            self._ledger.queue_again(job)
        if late:
            self._lease_decoding(now)

    def _situation(self, served: ModelQueue, idle: int, spare: int, now: float) -> Situation:
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
            free_cores=self._free_cores() if served.on_processor else math.inf,
            load=self._load.cores(now) / self._cores if served.on_processor else 0.0,
        )

    def _free_cores(self) -> int:
        """Cores that no stage works on; negative where more is under way than there are cores."""
        used = sum(1 for worker in self.decoders.workers.values() if worker.leases)
        used += sum(1 for worker in self.postprocessors.workers.values() if worker.leases)
        for served in self.models.values():
            used += sum(worker.cores for worker in served.instances.values() if worker.leases)
        return self._cores - used

    def _start_batch(self, served: ModelQueue, worker: Worker, size: int, now: float) -> None:
        jobs = served.next_batch(size)
        for job in [job for job in jobs if job.admit.deadline <= now]:
            jobs.remove(job)
            self._ledger.free_row(job)
            job.state = JobState.GONE
            self._ledger.expire(job, "the deadline passed before inference")
        slot = served.outputs.claim() if jobs else None
        if slot is None:
            return
        batch = Batch(jobs, slot, served.outputs.generation(slot))
        batch.alone = len(jobs) == 1 and self._has_all_cores()
        for job in jobs:
            job.state = JobState.INFERRING
        lease = self._lease(worker, served, jobs, batch, served.policy.expected(len(jobs)), now)
        rows, onward = tuple(job.row for job in jobs), self._onward(lease, batch)
        self._ledger.send(worker.name, InferLease(lease.number, rows, slot, batch.alone, onward))

    def _onward(self, lease: Lease, batch: Batch) -> Onward | None:
        """The way ahead of a batch of one, where a postprocess worker waits for it: it then hears of it first.

        A suspect goes step by step, so that it is known whom it killed.
        """
        job = lease.jobs[0]
        if len(lease.jobs) > 1 or job.deaths or self._answers or (worker := self.postprocessors.waiting()) is None:
            return None
        batch.leases += 1
        batch.onward = following = self._new_lease(worker, lease.served, [job], batch, self.postprocessors.seconds)
        following.positions, following.carrier, following.begun = [0], lease.worker, False
        worker.reserved[following.number] = following
        post = self._post_lease(following, batch)
        return Onward(worker.address, post, job.decode_started + job.decode_seconds)

    def begin(self, batch: Batch, now: float) -> None:
        """A batch has run and was handed on."""
        lease, batch.onward = batch.onward, None
        if lease is not None:
            lease.begun = True
            lease.jobs[0].state = JobState.POSTPROCESSING
            self._expect(lease, now)

    def forgo(self, batch: Batch, now: float) -> None:
        """A batch will not be handed on."""
        lease, batch.onward = batch.onward, None
        if lease is not None:
            batch.leases -= 1
            self.withdraw(lease, now)

    def recall(self, lease: Lease, now: float) -> None:
        """Its carrier is dead, and may have handed a lease on or not: its worker says, or is as good as dead."""
        lease.carrier = None
        if not lease.begun:
            self._expect(lease, now)
        self._ledger.send(lease.worker.name, Recall(lease.number))

    def withdraw(self, lease: Lease, now: float) -> None:
        """Nobody will work on a lease."""
        del self.leases[lease.number]
        lease.worker.drop(lease, now)

    @staticmethod
    def _expect(lease: Lease, now: float) -> None:
        """Its worker has a lease by now: its time runs."""
        del lease.worker.reserved[lease.number]
        lease.worker.take(lease, now)

    def _has_all_cores(self) -> bool:
        """Whether a job that is handed out now has the cores to itself: no model computes, nothing is on its way."""
        return not any(
            served.queued or served.decoding or served.ready or any(w.leases for w in served.instances.values())
            for served in self.models.values()
        )

    def _lease_answers(self, now: float) -> None:
        while self._answers:
            served, batch, positions = self._answers[0]
            live = self._still_wanted(batch, positions)
            if not live:
                self._answers.popleft()
                self._ledger.release_part(served, batch)
                continue
            worker = self.postprocessors.pick(live[0][1])
            if worker is None:
                return
            self._answers.popleft()
            self._lease_part(worker, served, batch, live, now)

    def _still_wanted(self, batch: Batch, positions: list[int]) -> list[tuple[int, Job]]:
        """The jobs among these whose clients have no reply yet; the others are forgotten here."""
        live = []
        for index in positions:
            job = batch.jobs[index]
            if job is None:
                continue
            if job.answered:
                batch.jobs[index] = None
                self._ledger.forget(job)
            else:
                live.append((index, job))
        return live

    def _lease_part(
        self, worker: Worker, served: ModelQueue, batch: Batch, live: list[tuple[int, Job]], now: float
    ) -> None:
        jobs = [job for _, job in live]
        lease = self._lease(worker, served, jobs, batch, self.postprocessors.seconds * len(jobs), now)
        lease.positions = [index for index, _ in live]
        for job in jobs:
            job.state = JobState.POSTPROCESSING
        self._ledger.send(worker.name, self._post_lease(lease, batch))

    @staticmethod
    def _post_lease(lease: Lease, batch: Batch) -> PostLease:
        items = []
        for index, job in zip(lease.positions, lease.jobs, strict=True):
            admit = job.admit
            times = job.times()
            items.append(PostJob(admit.job, index, job.geometry, admit.options, admit.format, times, admit.part))
        key = lease.served.key
        return PostLease(lease.number, key, batch.slot, batch.size, batch.inferred, batch.shapes, tuple(items))

    def _lease(
        self, worker: Worker, served: ModelQueue, jobs: list[Job], batch: Batch | None, expected: float, now: float
    ) -> Lease:
        lease = self._new_lease(worker, served, jobs, batch, expected)
        worker.take(lease, now)
        return lease

    def _new_lease(
        self, worker: Worker, served: ModelQueue, jobs: list[Job], batch: Batch | None, expected: float
    ) -> Lease:
        lease = Lease(self._next, worker, served, jobs, batch, expected)
        self._next += 1
        self.leases[lease.number] = lease
        return lease
