"""Infer workers: from rows to outputs, one model each."""

from __future__ import annotations

import time

import msgspec
from msgspec.structs import replace

from parallel_infer.ipc.channel import PeerLinks
from parallel_infer.ipc.messages import InferLease, Inferred, Onward, Started, ToInferWorker, WorkerReady
from parallel_infer.loading import load_by_name
from parallel_infer.process.child import Child
from parallel_infer.process.options import InferOptions
from parallel_infer.shm.ring import Ring
from parallel_infer.worker.loop import WorkerProcess, run


class InferWorker(WorkerProcess[ToInferWorker]):
    """Runs one model."""

    stage = "infer"

    def __init__(self, child: Child, options: InferOptions) -> None:
        super().__init__(child, options, ToInferWorker)
        self._peers = PeerLinks(self._context)
        self._plan = options.plan
        rows, outputs = Ring.attach(self._plan.rows), Ring.attach(self._plan.outputs)
        self._stage = load_by_name(options.stage)(self._plan, rows, outputs)
        self._times, self._costs = self._stage.warm_up()

    def _ready(self) -> WorkerReady:
        cores = self._plan.session.threads if self._stage.on_processor else 0
        return WorkerReady(self.stage, self._plan.key, self._times, cores, self._costs)

    def _started(self) -> Started:
        return Started(provider=self._stage.session.describe())

    def run_forever(self) -> None:
        """Receive, run, report; at the end the stage puts its things in order."""
        super().run_forever()
        self._stage.close()

    def _take(self, message: ToInferWorker) -> None:
        match message:
            case InferLease():
                self._infer(message)
                self._flush()  # each batch at once: others wait for it
            case _:
                self._take_common(message)

    def _infer(self, lease: InferLease) -> None:
        started, used = time.monotonic(), time.process_time()
        ran = self._stage.run(lease.rows, lease.slot, lease.alone)
        seconds, cost = time.monotonic() - started, (time.process_time() - used) * self._stage.on_processor
        if lease.onward is not None and not ran.failed:
            self._hand_on(lease.onward, started, seconds, ran.shapes)
        self._link.send(Inferred(lease.lease, started, seconds, ran.gathered, ran.shapes, ran.failed, cost))

    def _hand_on(self, onward: Onward, started: float, seconds: float, shapes: dict[str, tuple[int, ...]]) -> None:
        """Who waits for this batch gets it from here; the dispatcher hears of it meanwhile."""
        (job,) = onward.lease.jobs
        job = replace(job, times=(*job.times[:2], started - onward.decoded, seconds))
        lease = replace(onward.lease, inferred=started + seconds, shapes=shapes, jobs=(job,))
        self._peers.send(onward.address, lease)

    def close(self) -> None:
        """Hand over what was sent, to other workers too."""
        self._peers.close(self._until)
        super().close()


def main(child: Child, encoded: bytes) -> None:
    """Entry point of an infer worker."""
    run(InferWorker(child, msgspec.msgpack.decode(encoded, type=InferOptions)))
