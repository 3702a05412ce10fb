"""Worker processes: the link to the dispatcher around a stage. Leases come in, the stage works, reports go out."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar, assert_never

from parallel_infer.ipc.channel import Link, new_context
from parallel_infer.ipc.messages import Register, Started, StopWorker, ToEveryWorker, WorkerReady
from parallel_infer.process.child import Child
from parallel_infer.process.options import WorkerOptions

INTERNAL = "internal error in this stage"
Received = TypeVar("Received")
_HOLD_BACK = 0.0005  # seconds a finished job's report may wait for the next one's


class WorkerProcess(ABC, Generic[Received]):
    """What all workers have in common: the link, the announcement, the loop."""

    stage = ""

    def __init__(self, child: Child, options: WorkerOptions, received: Any) -> None:
        self._child = child
        self._context = new_context()
        self._link: Link[Received] = Link(self._context, options.dispatcher, child.name, received)
        self._running = True
        self._announced = False
        self._epoch = 0  # of the dispatcher that we have announced ourselves to
        self._flushed = 0.0
        self._until: float | None = None  # what was sent at the end has time to leave

    def run_forever(self) -> None:
        """Receive, work, report."""
        while self._running:
            for message in self._link.receive():
                self._take(message)
            self._flush()

    def close(self) -> None:
        """Hand over what was sent: a process that ends takes with it what its ZeroMQ still holds."""
        self._link.close(self._until)
        self._context.term()

    @abstractmethod
    def _take(self, message: Received) -> None: ...

    def _take_common(self, message: ToEveryWorker) -> None:
        match message:
            case Register():
                self._epoch = message.epoch
                self._link.send(self._ready())
                self._flush()  # now: what comes next may take long
                if not self._announced:
                    self._announced = True
                    self._child.tell(self._started())
            case StopWorker():
                self._running = False
                self._until = message.until
            case _:
                assert_never(message)

    def _ready(self) -> WorkerReady:
        return WorkerReady(self.stage, "", {})

    def _started(self) -> Started:
        return Started()

    def _flush(self) -> None:
        self._link.flush()
        self._flushed = time.monotonic()

    def _flush_if_due(self) -> None:
        if time.monotonic() - self._flushed > _HOLD_BACK:
            self._flush()


def run(worker: WorkerProcess[Any]) -> None:
    """The life of a worker's process."""
    try:
        worker.run_forever()
    finally:
        worker.close()
