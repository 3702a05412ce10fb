"""What the dispatcher tells of itself: plain numbers, no names of files or segments."""

from __future__ import annotations

import time

import msgspec

from parallel_infer.dispatcher.core import Core
from parallel_infer.dispatcher.model_queue import ModelQueue
from parallel_infer.dispatcher.workers import Worker
from parallel_infer.ipc.messages import (
    DispatcherStatus,
    Leaked,
    ModelReport,
    ModelStatus,
    ProcessReport,
    ProcessTime,
    SlotCount,
    WorkerStatus,
)


def status(core: Core, report: ProcessReport) -> DispatcherStatus:
    """Models, workers and counters, as docs/protocol.md describes them; `report` is what the supervisor said last."""
    models = core.leasing.models.values()
    return DispatcherStatus(
        jobs=len(core.ledger.jobs),
        draining=core.draining,
        models={served.key: _model(core, served, report.models.get(served.key)) for served in models},
        workers={_slot_name(worker.name): _worker(worker) for worker in core.workers()},
        processes=report.processes,
        refused=dict(core.ledger.counts),
        dispatcher=ProcessTime(round(time.process_time(), 3)),
        shared_pictures=len(core.ledger.pictures),
        doors=report.doors,
    )


def _slot_name(name: bytes) -> str:
    """A worker's name without the number of its incarnation."""
    return name.decode().rpartition(".")[0]


def _model(core: Core, served: ModelQueue, report: ModelReport | None) -> ModelStatus:
    counts, plan = served.counts, served.plan
    report = report or ModelReport(  # the supervisor has not said more than that yet
        name=plan.name,
        version=plan.version,
        state="loading",
        digest=plan.spec.digest,
        provider="",
        memory=plan.rows.size + plan.outputs.size,
        trial=plan.trial,
    )
    return ModelStatus(
        **msgspec.structs.asdict(report),
        unavailable=served.failure,
        jobs=served.jobs,
        queued=served.queued,
        decoding=served.decoding,
        ready=len(served.ready),
        instances=len(served.instances),
        rows=SlotCount(served.rows.count, served.rows.free),
        outputs=SlotCount(served.outputs.count, served.outputs.free),
        answered=counts["answered"],
        failed=counts["failed"],
        expired=counts["expired"],
        dropped=counts["dropped"],
        rejected=counts["rejected"],
        batches=counts["batches"],
        batched_rows=counts["rows"],
        gathered_rows=counts["gathered"],
        decoded=counts["decoded"],
        reused=counts["reused"],
        batch_sizes={str(size): number for size, number in sorted(served.batch_sizes.items())},
        batch_target=served.policy.target,
        batch_seconds=round(served.policy.expected(plan.max_batch), 6),
        leaked=_leaked(core, served),
    )


def _leaked(core: Core, served: ModelQueue) -> Leaked:
    rows = sum(1 for job in core.ledger.jobs.values() if job.served is served and job.row >= 0)
    return Leaked(
        rows=served.rows.count - served.rows.free - rows,
        outputs=served.outputs.count - served.outputs.free - len(core.leasing.batches(served)),
    )


def _worker(worker: Worker) -> WorkerStatus:
    return WorkerStatus(
        stage=worker.stage,
        model=worker.model,
        leases=len(worker.leases),
        done=worker.done,
        busy_seconds=round(worker.busy_seconds, 3),
    )
