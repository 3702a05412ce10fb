"""The loop of an asynchronous pass: fill all job slots, wait for the oldest, take its place, drain."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from parallel_infer.errors import DeadlineExceeded
from parallel_infer.job_status import JobStatus
from parallel_infer.runner.runner import JobHandle, Runner

_ROUNDS = 5  # a benchmark alternates this often, so that a busy minute of the machine hits both passes alike


@dataclass(slots=True)
class AsyncPass:
    """Batches through a runner with all of its job slots in use; every batch has the same inputs.

    `completed` counts as batches complete, so it tells how far a failed pass came; `outputs` are those of the last
    batch; `timeout` is what one wait may take, in seconds.
    """

    runner: Runner
    inputs: dict[str, np.ndarray]
    timeout: float
    completed: int = 0
    outputs: dict[str, np.ndarray] = field(default_factory=dict)

    def run(self, batches: int) -> None:
        """`InferError` as soon as one batch fails, `DeadlineExceeded` where one takes longer than `timeout`."""
        in_flight: deque[JobHandle] = deque()
        for _ in range(min(self.runner.jobs, batches)):
            in_flight.append(self.runner.execute_async(self.inputs))
        for _ in range(batches - len(in_flight)):
            self._take(in_flight.popleft())
            in_flight.append(self.runner.execute_async(self.inputs))
        while in_flight:
            self._take(in_flight.popleft())

    def _take(self, handle: JobHandle) -> None:
        if self.runner.wait(handle, self.timeout) is JobStatus.PENDING:
            raise DeadlineExceeded(f"a batch took longer than timeout = {self.timeout:g} s")
        self.outputs = self.runner.result(handle)
        self.completed += 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """Seconds of the same number of batches, one at a time and with all jobs in flight."""

    synchronous: float
    asynchronous: float


def compare(asynchronous: AsyncPass, batches: int) -> Comparison:
    """Both ways, in alternating rounds; `batches` each. The first batches, which warm up, do not count."""
    runner, inputs = asynchronous.runner, asynchronous.inputs
    AsyncPass(runner, inputs, asynchronous.timeout).run(runner.jobs)
    seconds = [0.0, 0.0]
    for share in _shares(batches):
        started = time.perf_counter()
        for _ in range(share):
            runner.execute(inputs)
        between = time.perf_counter()
        asynchronous.run(share)
        seconds[0] += between - started
        seconds[1] += time.perf_counter() - between
    return Comparison(*seconds)


def _shares(batches: int) -> list[int]:
    rounds = min(_ROUNDS, batches)
    return [batches * (index + 1) // rounds - batches * index // rounds for index in range(rounds)]
