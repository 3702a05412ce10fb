"""Infer workers: from rows to outputs, one model each.

Where a device computes beside its copies, the worker begins its next batch while the last one is under way: a thread
waits for the device, and the loop for the dispatcher.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from parallel_infer.ipc.channel import PeerLinks, Watch
from parallel_infer.ipc.messages import InferLease, Inferred, Onward, Started, ToInferWorker, WorkerReady
from parallel_infer.ipc.stages import BatchResult, BatchUnderWay
from parallel_infer.loading import load_by_name
from parallel_infer.process.child import Child
from parallel_infer.process.options import InferOptions
from parallel_infer.shm.ring import Ring
from parallel_infer.worker.loop import WorkerProcess, run
from parallel_infer.worker.waiter import Waiter


class _Begun(NamedTuple):
    """A lease that is being worked on."""

    lease: InferLease
    batch: BatchUnderWay
    started: float
    over: list[float]  # when it was, once it is


def _wait(begun: _Begun) -> None:
    begun.batch.wait()
    begun.over.append(time.monotonic())


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
        return WorkerReady(self.stage, self._plan.key, self._times, cores, self._costs, at_once=self._stage.at_once)

    def _started(self) -> Started:
        return Started(provider=self._stage.session.describe())

    def run_forever(self) -> None:
        """Receive, run, report; at the end the stage puts its things in order."""
        if self._stage.at_once > 1:
            self._run_overlapping()
        else:
            super().run_forever()
        self._stage.close()

    def _run_overlapping(self) -> None:
        waiter = Waiter(_wait)
        try:
            self._take_and_begin(waiter)
        finally:
            waiter.end()

    def _take_and_begin(self, waiter: Waiter[_Begun]) -> None:
        """Leases are begun while there is room; all else is done in between, when nothing is under way."""
        watch = Watch()
        watch.add(self._link.socket)
        watch.add(waiter.descriptor)
        received: deque[ToInferWorker] = deque()
        under_way, last_over = 0, 0.0
        while self._running:
            there = watch.wait(None)
            for begun in waiter.take():
                under_way -= 1
                (over,) = begun.over
                started = max(begun.started, last_over)  # before that, the device computed another batch
                last_over = over
                self._report(begun.lease, started, over - started, begun.batch.finish())
                self._flush()  # each batch at once: others wait for it
            if self._link.socket in there:
                received += self._link.drain()
            while received and under_way < (self._stage.at_once if isinstance(received[0], InferLease) else 1):
                message = received.popleft()
                if isinstance(message, InferLease) and not (message.alone and not under_way):
                    waiter.put(_Begun(message, self._stage.begin(message.rows, message.slot), time.monotonic(), []))
                    under_way += 1
                else:  # a batch with nothing behind it is over sooner without another thread
                    self._take(message)

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
        self._report(lease, started, seconds, ran, cost)

    def _report(self, lease: InferLease, started: float, seconds: float, ran: BatchResult, cost: float = 0.0) -> None:
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
        self._peers.close()
        super().close()


def main(child: Child, encoded: bytes) -> None:
    """Entry point of an infer worker."""
    run(InferWorker(child, msgspec.msgpack.decode(encoded, type=InferOptions)))
