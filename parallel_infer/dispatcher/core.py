"""What the dispatcher decides. No socket, no clock: messages and the time come in, messages go out through `send`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from parallel_infer.dispatcher.estimate import learned
from parallel_infer.dispatcher.jobs import Job, JobState
from parallel_infer.dispatcher.ledger import Ledger, Send
from parallel_infer.dispatcher.model_queue import ModelQueue
from parallel_infer.dispatcher.pictures import SharedPictures
from parallel_infer.dispatcher.policy import Policy
from parallel_infer.dispatcher.recovery import Recovery
from parallel_infer.dispatcher.scheduler import Leasing
from parallel_infer.dispatcher.watchdog import Watchdog
from parallel_infer.dispatcher.workers import Pool, Worker
from parallel_infer.errors import Dropped, InferError, UnknownModel, WorkerLost
from parallel_infer.ipc.messages import (
    Admit,
    AnswersInDoubt,
    CloseModel,
    Decoded,
    DecodeFailed,
    Inferred,
    KillWorker,
    ModelClosed,
    ModelFailed,
    ModelPlan,
    ModelRemoved,
    Postprocessed,
    Recalled,
    Released,
    WorkerReady,
)

_LATE = "the deadline passed before the answer was ready"
_PATIENCE = 5.0  # seconds that a worker may take to finish what an earlier dispatcher gave it
_PAUSE = 1.0  # seconds by which a look at workers is late from which the machine counts as paused, not busy


class Core:
    """Every job, every model and every worker, and what happens next."""

    def __init__(
        self, send: Send, policy: Callable[[ModelPlan], Policy], stage_limit: float, cores: int, kept: int, first: int
    ) -> None:
        """`kept` are bytes of pixels that each decode worker keeps, `first` is the number of the first lease."""
        self._send = send
        self._policy = policy
        self._stage_limit = stage_limit
        self.ledger = Ledger(send, SharedPictures(kept))
        # Lease numbers of two dispatchers of one run never meet.
        self.leasing = Leasing(self.ledger, cores, first)
        self._recovery = Recovery(self.ledger, self.leasing)
        self.supervisor = b"supervisor"
        self.serving: dict[str, ModelQueue] = {}  # by name; `models` also has those being loaded and drained
        self.awaited: set[bytes] = set()  # workers of an earlier dispatcher that have not announced themselves
        self._early: dict[str, dict[bytes, WorkerReady]] = {}  # instances of models that are not announced yet
        self._patience = 0.0  # until when they have time
        self._watchdog = Watchdog()
        self._due = -math.inf  # what `next_timer` has said since the last step: nothing needs a look before
        self.draining = False  # for the status: the gateway lets nobody in any more

    # --- jobs --------------------------------------------------------------------------------------------------------

    def admit(self, message: Admit, now: float) -> None:
        """A new job, or one that an earlier dispatcher lost."""
        if message.job in self.ledger.jobs:
            return  # the gateway sent it to an earlier connection, too
        served = self.serving.get(message.model)
        if served is None:
            self.ledger.turn_away(message, UnknownModel(f"no model {message.model!r} is served"))
            return
        if message.source:
            self.ledger.replace_queued(message)
        obstacle = served.obstacle(message, now)
        if obstacle is not None:
            self.ledger.turn_away(message, obstacle)
            return
        if not served.queued and not served.decoding:
            # A model that was idle joins at the others' virtual time: idleness earns no right to flood.
            served.virtual_time = max(served.virtual_time, self.leasing.virtual_now)
        job = Job(message, served)
        self.ledger.enter(job)
        served.enqueue(job)

    def cancel(self, number: int, held: bool = False) -> None:
        """The client has lost interest. With `held` the gateway keeps the payload until it hears of it."""
        job = self.ledger.jobs.get(number)
        if job is None and held:
            self._send(self.ledger.gateway, Released(number))
        if job is not None and not job.answered:
            self.ledger.fail(job, Dropped.code, "cancelled by the client")

    def overdue(self, number: int) -> None:
        """The gateway gave up on a job, and holds its payload until nobody reads it any more."""
        job = self.ledger.jobs.get(number)
        if job is None:  # we were through with it: its answer died with its worker
            self._send(self.ledger.gateway, Released(number))
        elif not job.answered:
            self.ledger.expire(job, _LATE)

    def gateway_restarted(self) -> None:
        """A new gateway: jobs of the old one have nobody to answer to, and their payloads may be overwritten."""
        for job in list(self.ledger.jobs.values()):
            if not job.answered:
                self.ledger.fail(job, Dropped.code, "the gateway restarted")
        self.ledger.pictures.close()

    # --- what workers report -----------------------------------------------------------------------------------------

    def decoded(self, message: Decoded, now: float) -> None:
        """A row is written."""
        lease = self.leasing.decoding_returned(message, now)
        if lease is None:
            return
        job, served = lease.jobs[0], lease.served
        self.leasing.decoders.learn(message.seconds)
        served.decode_seconds = learned(served.decode_seconds, message.seconds, 0.05)
        if self.ledger.decoding_ended(job):
            job.geometry = message.geometry
            job.decode_started = message.started
            job.decode_seconds = message.seconds
            job.decoded = now
            job.state = JobState.READY
            served.ready[job.row] = job

    def decode_failed(self, message: DecodeFailed, now: float) -> None:
        """A payload is no picture, or not what the model takes."""
        lease = self.leasing.decoding_returned(message, now)
        if lease is not None and self.ledger.decoding_ended(lease.jobs[0]):
            self.ledger.free_row(lease.jobs[0])
            self.ledger.fail_freed(lease.jobs[0], message.code, message.text)

    def inferred(self, message: Inferred, now: float) -> None:
        """A batch has run; its outputs lie in its slot."""
        lease = self.leasing.returned(message.lease, now, message.started, message.seconds)
        if lease is None or lease.batch is None:
            return
        served, batch = lease.served, lease.batch
        served.ran(batch, message, now)
        if lease.jobs[0].state == JobState.GONE:
            return  # its answer was quicker than this report
        batch.inferred = message.started + message.seconds
        batch.shapes = message.shapes
        failed = {row.index: row for row in message.failed}
        positions = []
        if failed:
            self.leasing.forgo(batch, now)
        for index, job in enumerate(lease.jobs):
            self.ledger.free_row(job)
            job.infer_started = message.started
            job.infer_seconds = message.seconds
            job.state = JobState.INFERRED
            if batch.onward is not None:
                continue  # it goes its way
            if job.answered:
                batch.jobs[index] = None
                self.ledger.forget(job)
            elif index in failed:
                batch.jobs[index] = None
                self.ledger.fail_freed(job, failed[index].code, failed[index].text)
            else:
                positions.append(index)
        if batch.onward is not None:
            self.leasing.begin(batch, now)
        elif positions:
            self.leasing.queue_answers(served, batch, positions)
        else:
            served.outputs.release(batch.slot, batch.generation)

    def postprocessed(self, message: Postprocessed, now: float) -> None:
        """All jobs of a lease were answered by their worker."""
        lease = self.leasing.returned(message.lease, now, message.started, message.seconds)
        if lease is None or lease.batch is None:
            return
        self.leasing.postprocessors.learn(message.seconds / len(lease.jobs))
        if not lease.begun:  # the report of its run is still under way, but this says as much
            lease.batch.onward = None
            self.ledger.free_row(lease.jobs[0])
        for job in lease.jobs:
            if not job.answered:
                lease.served.counts["answered"] += 1
                lease.worker.answered.append(job.admit.job)
            self.ledger.forget(job)
        self.ledger.release_part(lease.served, lease.batch)

    def recalled(self, message: Recalled, now: float) -> None:
        """A lease died with its carrier."""
        lease = self.leasing.leases.get(message.lease)
        if lease is not None:
            self.leasing.withdraw(lease, now)
            self._recovery.give_again(lease)

    # --- workers -----------------------------------------------------------------------------------------------------

    def expect(self, workers: Iterable[str], now: float) -> None:
        """Workers that live already: nothing is handed out before each has announced itself or is dead.

        They may still be writing where an earlier dispatcher told them to. One that is silent for too long is killed.
        """
        self._patience = now + min(self._stage_limit, _PATIENCE)
        known = {worker.name for worker in self.workers()}
        self.awaited = {name for worker in workers if (name := worker.encode()) not in known}

    def worker_ready(self, name: bytes, message: WorkerReady) -> None:
        """A worker announces itself; it holds no lease."""
        self.awaited.discard(name)
        if any(known.name == name for known in self.workers()):
            return
        worker = Worker(name, message)
        if message.stage != "infer":
            self._pool(message.stage).workers[name] = worker
            return
        served = self.leasing.models.get(message.model)
        if served is None:
            self._early.setdefault(message.model, {})[name] = message
            return
        served.instances[name] = worker
        served.failure = ""
        served.policy.learn(message.times, message.costs)

    def worker_down(self, name: bytes, now: float) -> None:
        """A worker is dead and reaped: what it held is given to others, once; a job that killed two is poison."""
        self.awaited.discard(name)
        for early in self._early.values():
            early.pop(name, None)
        worker = self._remove_worker(name)
        if worker is None:
            return
        if worker.answered:
            self._send(self.ledger.gateway, AnswersInDoubt(tuple(worker.answered)))
        self._recovery.recover(worker, now)

    # --- models ------------------------------------------------------------------------------------------------------

    def prepare_model(self, plan: ModelPlan) -> None:
        """A model that is being loaded; its instances announce themselves, jobs come later."""
        served = ModelQueue(plan, self._policy(plan))
        self.leasing.models[served.key] = served
        for name, message in self._early.pop(served.key, {}).items():
            self.worker_ready(name, message)

    def open_model(self, plan: ModelPlan) -> None:
        """Serve a model. One of the same name takes no more jobs and closes when its last one is answered."""
        if plan.key not in self.leasing.models:
            self.prepare_model(plan)
        older = self.serving.get(plan.name)
        if older is not None and older.key != plan.key:
            older.closing = True
        self.serving[plan.name] = self.leasing.models[plan.key]

    def close_model(self, message: CloseModel) -> None:
        """Take no more jobs of a model."""
        served = self.leasing.models.get(message.model)
        if served is not None:
            served.closing = True
            if self.serving.get(served.name) is served:
                del self.serving[served.name]

    def model_failed(self, message: ModelFailed) -> None:
        """A model's workers keep dying: its jobs get an error now, and so do new ones until a worker is back."""
        served = self.leasing.models.get(message.model)
        if served is None:
            return
        served.failure = message.text
        for job in list(self.ledger.jobs.values()):
            if job.served is served and not job.answered:
                self.ledger.fail(job, WorkerLost.code, f"model {served.name!r} is unavailable: {message.text}")

    # --- what goes on ------------------------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Answer what has expired and hand out all the work that can be handed out."""
        due, self._due = self._due, -math.inf
        if now >= due:
            self._on_timer(now)
        if not self.awaited:
            self.leasing.hand_out(now)
        self._watchdog.look(now, watched=bool(self.leasing.leases or self.awaited))
        for served in [served for served in self.leasing.models.values() if served.closing and not served.jobs]:
            del self.leasing.models[served.key]
            self.leasing.look_again.pop(served.key, None)
            for worker in self.cpu_workers():
                self._send(worker.name, ModelRemoved(served.key))
            self._send(self.supervisor, ModelClosed(served.key))

    def next_timer(self) -> float | None:
        """When `step` has to be called even if nothing comes in; None: never."""
        others = self._watchdog.due, self._patience if self.awaited else None, self.ledger.deadlines.next()
        due = min((t for t in (*others, *self.leasing.timers()) if t is not None), default=math.inf)
        for worker in self.workers():
            due = min(due, worker.overdue_at(self._stage_limit, due) or due)
        self._due = due
        return None if due == math.inf else due

    def _on_timer(self, now: float) -> None:
        for job in [job for job in self.ledger.deadlines.expired(now) if not job.answered]:
            self.ledger.expire(job, _LATE)
        lost = self._watchdog.lost(now)
        if lost > _PAUSE:  # everything stood still, the others too, or may have: their time begins anew
            self._patience = now + _PATIENCE
            for worker in self.workers():
                worker.head_since = now
        elif lost:  # a busy machine: nobody is accused for that time, nor excused for any other
            self._patience += lost
            for worker in self.workers():
                worker.head_since = min(now, worker.head_since + lost)
        for worker in self.workers():
            limit = worker.overdue_at(self._stage_limit)
            if limit is not None and limit <= now:
                worker.doomed = True
                self._kill(worker.name, "did not return its work in time")
        if self.awaited and self._patience <= now:
            self._patience = now + _PATIENCE
            for name in self.awaited:
                self._kill(name, "did not come back to a new dispatcher")

    def _kill(self, name: bytes, why: str) -> None:
        self.ledger.counts["killed"] += 1
        self._send(self.supervisor, KillWorker(name.decode(), why))

    # --- who and what there is ---------------------------------------------------------------------------------------

    def workers(self) -> Iterable[Worker]:
        """Every worker that has announced itself."""
        yield from self.cpu_workers()
        for served in self.leasing.models.values():
            yield from served.instances.values()

    def cpu_workers(self) -> Iterable[Worker]:
        """Those of decode and postprocess, which serve every model."""
        yield from self.leasing.decoders.workers.values()
        yield from self.leasing.postprocessors.workers.values()

    def _pool(self, stage: str) -> Pool:
        if stage == "decode":
            return self.leasing.decoders
        if stage == "postprocess":
            return self.leasing.postprocessors
        raise InferError(f"no stage {stage!r}")

    def _remove_worker(self, name: bytes) -> Worker | None:
        for workers in (
            self.leasing.decoders.workers,
            self.leasing.postprocessors.workers,
            *(served.instances for served in self.leasing.models.values()),
        ):
            if name in workers:
                return workers.pop(name)
        return None
