"""Many inputs, several threads, one session: outputs or errors in the order of the inputs."""

from __future__ import annotations

import math
import numbers
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from parallel_infer.errors import ConfigError, DeadlineExceeded, Dropped, InferError
from parallel_infer.inference.engines import Stop
from parallel_infer.inference.session import Session

Outputs = dict[str, np.ndarray]


def check_count(name: str, value: Any) -> None:
    """Raises ConfigError for what is no whole number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ConfigError(f"{name} = {value!r:.50} is no whole number; it is at least 1")
    if value < 1:
        raise ConfigError(f"{name} = {value} is out of range; it is at least 1")


def split_threads(inputs: int, budget: int, workers: int | None) -> tuple[int, int]:
    """Workers, and threads for each, so that together they use `budget` threads.

    Many inputs: more workers with fewer threads, because runs side by side waste less than threads that share an
    operator. One input: one worker with all threads. `workers` overrides the number of workers.
    """
    if workers is not None:
        check_count("workers", workers)
    taken = max(1, min(inputs, workers or budget))
    return taken, max(1, budget // taken)


class ParallelRun:
    """One pass over a list of inputs.

    `timeout` counts for each input from the moment its run begins. What takes longer is stopped at its next operator,
    and its place taken by `DeadlineExceeded` at once, whether or not the stop was heard.
    """

    def __init__(self, session: Session, inputs: Sequence[Mapping[str, np.ndarray]], timeout: float | None) -> None:
        self._session = session
        self._inputs = inputs
        self._timeout = timeout
        self._places: list[Outputs | InferError | None] = [None] * len(inputs)
        self._left = len(inputs)
        self._next: Iterator[int] = iter(range(len(inputs)))
        self._running: dict[int, tuple[float, Stop]] = {}  # by input: when it is due, how to stop it
        self._changed = threading.Condition()

    def run(self, workers: int) -> list[Outputs | InferError]:
        """Blocks until every input has its outputs or its error."""
        pool = ThreadPoolExecutor(workers, thread_name_prefix="parallel-run")
        try:
            for _ in range(workers):
                pool.submit(self._work)
            with self._changed:
                while (pause := self._expire()) is not None:
                    self._changed.wait(pause)
        finally:
            self.stop()  # an interrupted wait must not leave runs behind
            pool.shutdown(wait=False)
        return [place for place in self._places if place is not None]

    def stop(self) -> None:
        """Ends what runs, and gives what has not begun to `Dropped`."""
        with self._changed:
            for index in range(len(self._places)):
                self._place(index, Dropped("the run was stopped before it finished"))
            for _, stop in self._running.values():
                stop.set()

    def _work(self) -> None:
        while (begun := self._begin()) is not None:
            index, stop = begun
            outcome = self._outcome(index, stop)
            with self._changed:
                self._running.pop(index, None)
                self._place(index, outcome)

    def _begin(self) -> tuple[int, Stop] | None:
        with self._changed:
            index = next((index for index in self._next if self._places[index] is None), None)
            if index is None:
                return None
            stop = Stop()
            due = math.inf if self._timeout is None else time.monotonic() + self._timeout
            self._running[index] = (due, stop)
            self._changed.notify_all()
            return index, stop

    def _outcome(self, index: int, stop: Stop) -> Outputs | InferError:
        try:
            return self._session.run(self._inputs[index], stop)
        except InferError as error:
            return error
        except Exception as error:  # whatever it is, it is this input's and must not end the thread
            return InferError(f"input {index} failed: {type(error).__name__}")

    def _expire(self) -> float | None:
        """Stops what is overdue; seconds until the next is due, None once every place is taken."""
        now = time.monotonic()
        for index in [index for index, (due, _) in self._running.items() if due <= now]:
            self._running.pop(index)[1].set()
            self._place(index, DeadlineExceeded(f"input {index} took longer than timeout = {self._timeout} s"))
        due = min((due for due, _ in self._running.values()), default=math.inf)
        return min(threading.TIMEOUT_MAX, max(0.0, due - now)) if self._left else None

    def _place(self, index: int, outcome: Outputs | InferError) -> None:
        """First come, first served: the outcome of a run that was given up is dropped."""
        if self._places[index] is None:
            self._places[index] = outcome
            self._left -= 1
            self._changed.notify_all()
