"""What the dispatcher tells of itself: plain numbers, no names of files, segments or processes' ids."""

from __future__ import annotations

import time
from typing import Any

from parallel_infer.dispatcher.core import Core
from parallel_infer.dispatcher.model_queue import ModelQueue
from parallel_infer.dispatcher.workers import Worker
from parallel_infer.ipc.messages import ProcessReport


def status(core: Core, crew: ProcessReport) -> dict[str, Any]:
    """Models, workers and counters, as docs/protocol.md describes them."""
    return {
        "jobs": len(core.jobs),
        "draining": core.draining,
        "models": {
            served.key: {**crew.models.get(served.key, {}), **_model(served), "leaked": _leaked(core, served)}
            for served in core.models.values()
        },
        "workers": {_place(worker.name): _worker(worker) for worker in core.workers()},
        "processes": crew.processes,
        "refused": dict(core.counts),
        "dispatcher": {"cpu_seconds": round(time.process_time(), 3)},
    }


def _place(name: bytes) -> str:
    """A worker's name without the number of its incarnation."""
    return name.decode().rpartition(".")[0]


def _model(served: ModelQueue) -> dict[str, Any]:
    counts = served.counts
    return {
        "unavailable": served.failure,
        "jobs": served.jobs,
        "queued": served.queued,
        "decoding": served.decoding,
        "ready": len(served.ready),
        "instances": len(served.instances),
        "rows": {"slots": served.rows.count, "free": served.rows.free},
        "outputs": {"slots": served.outputs.count, "free": served.outputs.free},
        "answered": counts["answered"],
        "failed": counts["failed"],
        "expired": counts["expired"],
        "dropped": counts["dropped"],
        "rejected": counts["rejected"],
        "batches": counts["batches"],
        "batched_rows": counts["rows"],
        "gathered_rows": counts["gathered"],
        "batch_sizes": {str(size): number for size, number in sorted(served.batch_sizes.items())},
        "batch_target": served.policy.target,
        "batch_seconds": round(served.policy.expected(served.plan.max_batch), 6),
    }


def _leaked(core: Core, served: ModelQueue) -> dict[str, int]:
    """Slots that are taken though nothing in the house needs them: always 0."""
    rows = sum(1 for job in core.jobs.values() if job.served is served and job.row >= 0)
    return {
        "rows": served.rows.count - served.rows.free - rows,
        "outputs": served.outputs.count - served.outputs.free - len(core.leasing.batches(served)),
    }


def _worker(worker: Worker) -> dict[str, Any]:
    return {
        "stage": worker.stage,
        "model": worker.model,
        "leases": len(worker.leases),
        "done": worker.done,
        "busy_seconds": round(worker.busy_seconds, 3),
    }
