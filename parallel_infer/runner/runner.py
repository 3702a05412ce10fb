"""The in-process runner: a model, a few jobs in flight, no server.

One thread per job slot. Memory has one owner at any time: inputs are copied into the slot when a job is taken, so the
caller may change them at once; outputs are copied out when it is done, so they are the caller's for good. A slot is
free again the moment its job is done, whether or not anybody fetched the result.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np

from parallel_infer.errors import Dropped, InferError, ResourceUnavailable
from parallel_infer.execution_providers import ON_GPU, ProviderName
from parallel_infer.inference.engines import Stop
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.session import Session
from parallel_infer.inference.signature import Signature
from parallel_infer.job_status import JobStatus
from parallel_infer.model_spec import TensorSpec
from parallel_infer.runner.job_slot import JobSlot
from parallel_infer.runner.parallel_run import ParallelRun, check_count, split_threads
from parallel_infer.seconds import checked_patience

logger = logging.getLogger(__name__)

Inputs = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]


class JobHandle:
    """One job of a runner. Give it to `Runner.wait`, `Runner.result` and `Runner.cancel`."""

    __slots__ = ("_future", "_stop")

    def __init__(self) -> None:
        self._future: Future[Outputs] = Future()
        self._stop = Stop()


class Runner:
    """Runs a model with up to `jobs` jobs in flight. All methods may be called from any thread.

    `model` is a file or its bytes. `threads` are for one run, None stands for all cores. `config` says everything
    else; `provider` and `threads` replace those in it where they are given. `ModelRejected` for a model that does not
    load, `ConfigError` for a provider that cannot be had.
    """

    def __init__(
        self,
        model: str | Path | bytes,
        provider: ProviderName = "auto",
        jobs: int = 2,
        threads: int | None = None,
        config: SessionConfig | None = None,
    ) -> None:
        check_count("jobs", jobs)
        self._model = model
        self._jobs = jobs
        self._session = Session(model, _merged(config or SessionConfig(), provider, threads))
        self._narrow: Session | None = None  # the session of run_parallel, loaded when first needed
        self._narrow_lock = threading.Lock()
        self._lock = threading.Lock()  # guards what follows
        self._closed = False
        self._free = [JobSlot(self._session) for _ in range(jobs)]
        self._in_flight: set[JobHandle] = set()
        self._passes: set[ParallelRun] = set()
        self._own_threads: set[int] = set()
        self._pool = ThreadPoolExecutor(jobs, "runner", initializer=self._note_thread)

    @property
    def signature(self) -> Signature:
        """All tensors with every dimension."""
        return self._session.signature

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the model takes for one job; the batch dimension is left out."""
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._session.outputs

    @property
    def batch(self) -> int | None:
        """The batch size the graph demands; None where any will do."""
        return self._session.batch

    @property
    def jobs(self) -> int:
        """How many jobs may be in flight."""
        return self._jobs

    def describe(self) -> str:
        """Provider, precision and device in one line."""
        return self._session.describe()

    def execute(self, inputs: Inputs) -> Outputs:
        """Runs on the calling thread and takes no job slot. `BadInput` or `InferError` where it fails."""
        self._check_open()
        return self._session.run(inputs)

    def execute_async(self, inputs: Inputs, callback: Callable[[JobHandle], object] | None = None) -> JobHandle:
        """Takes the job and returns at once; `ResourceUnavailable` when all jobs are busy, `BadInput` at once too.

        `callback` is called with the handle on a thread of the runner once the job is done, failed jobs included; by
        then a slot is free, so it may start the next job, but not wait for it: its own thread may be the one to run it.
        What it raises is logged and harms nothing.
        """
        slot, handle = self._claim()
        try:
            slot.load(inputs)
            self._pool.submit(self._work, slot, handle, callback)
        except BaseException:
            self._release(slot, handle)
            raise
        return handle

    def wait(self, handle: JobHandle, timeout: float | None = None) -> JobStatus:
        """`DONE` once there is a result or an error to fetch, `PENDING` after `timeout` seconds; None waits on.

        `BadInput` for a `timeout` that is no number of seconds.
        """
        return JobStatus.DONE if wait_for([handle._future], checked_patience(timeout)).done else JobStatus.PENDING

    def result(self, handle: JobHandle) -> Outputs:
        """The outputs, as soon as they are there, or the error of the job raised."""
        return handle._future.result()

    def cancel(self, handle: JobHandle) -> None:
        """Ends the job at its next operator, with `Dropped`. One that is already done keeps its result."""
        handle._stop.set()

    def run_parallel(
        self, inputs: Sequence[Inputs], workers: int | None = None, timeout: float | None = 5.0
    ) -> list[Outputs | InferError]:
        """The outputs of every input, or its error, in the order of the inputs; blocks.

        Many inputs get more workers with fewer threads each, one input one worker with all threads; `workers` says
        otherwise. `timeout` is in seconds and counts from the start of an input's own run. `ConfigError` for a number
        of workers that is none, `BadInput` for a timeout that is none.
        """
        self._check_open()
        timeout = checked_patience(timeout)
        count, session = self._workers(len(inputs), workers)
        run = ParallelRun(session, inputs, timeout)
        with self._lock:
            self._passes.add(run)
        try:
            self._check_open()
            return run.run(count)
        finally:
            with self._lock:
                self._passes.discard(run)

    def close(self) -> None:
        """Ends what is in flight with `Dropped` and waits for the threads. Closing twice does nothing."""
        with self._lock:
            self._closed = True
            handles, passes = list(self._in_flight), list(self._passes)
        for handle in handles:
            handle._stop.set()
        for run in passes:
            run.stop()
        self._session.terminate()  # what execute() runs on other threads
        # A callback that closes its own runner cannot wait for the thread it is called on.
        self._pool.shutdown(wait=threading.get_ident() not in self._own_threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _work(self, slot: JobSlot, handle: JobHandle, callback: Callable[[JobHandle], object] | None) -> None:
        outputs, error = _attempt(slot, handle._stop)
        self._release(slot, handle)  # first the slot, so that whoever sees DONE finds one free
        if outputs is not None:
            handle._future.set_result(outputs)
        else:
            handle._future.set_exception(error)
        if callback is not None:
            try:
                callback(handle)
            except Exception:
                logger.exception("the callback of a job failed")

    def _claim(self) -> tuple[JobSlot, JobHandle]:
        with self._lock:
            if self._closed:
                raise _closed()
            if not self._free:
                raise ResourceUnavailable(f"all {self._jobs} jobs are busy; wait for one of them, or raise jobs")
            handle = JobHandle()
            self._in_flight.add(handle)  # in the same breath as the slot, so that close() misses none
            return self._free.pop(), handle

    def _release(self, slot: JobSlot, handle: JobHandle) -> None:
        with self._lock:
            self._free.append(slot)
            self._in_flight.discard(handle)

    def _check_open(self) -> None:
        with self._lock:
            if self._closed:
                raise _closed()

    def _note_thread(self) -> None:
        self._own_threads.add(threading.get_ident())

    def _workers(self, inputs: int, workers: int | None) -> tuple[int, Session]:
        """How many workers run that many inputs, and the session whose threads suit them."""
        config = self._session.config
        if self._session.choice.provider in ON_GPU:  # threads of the host do not matter there
            return split_threads(inputs, self._jobs, workers)[0], self._session
        count, threads = split_threads(inputs, config.thread_count, workers)
        if self._session.choice.provider == "openvino":  # one pool of threads, divided into streams
            return count, self._session_like(replace(config, streams=count))
        return count, self._session_like(replace(config, threads=threads))

    def _session_like(self, config: SessionConfig) -> Session:
        """A session of that configuration. At most one besides the first is kept; it holds the weights once more."""
        if (config.thread_count, config.streams) == (self._session.config.thread_count, self._session.config.streams):
            return self._session
        with self._narrow_lock:
            if self._narrow is None or self._narrow.config != config:
                self._narrow = None  # first freed, then loaded, so that there are never three
                self._narrow = Session(self._model, config)
            return self._narrow


def _attempt(slot: JobSlot, stop: Stop) -> tuple[Outputs | None, BaseException | None]:
    try:
        if stop.is_set:
            return None, Dropped("the job was cancelled before it began")
        return slot.run(stop), None
    except BaseException as error:
        return None, error


def _merged(config: SessionConfig, provider: ProviderName, threads: int | None) -> SessionConfig:
    if provider != "auto":
        config = replace(config, provider=provider)
    return config if threads is None else replace(config, threads=threads)


def _closed() -> RuntimeError:
    return RuntimeError("the runner is closed")
