"""Stages for trials: how long a batch takes, and whether it runs at all, depends on the threads and nothing else."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

from parallel_infer.ipc.messages import ModelPlan

SLOW, FAST = 0.01, 0.0005  # seconds of a batch
DIES_LOADING, DIES_RUNNING, REFUSES, QUICK = 3, 4, 5, 6  # threads


class Infer:
    """Sleeps instead of computing, so that a busy machine changes nothing about which setting is faster."""

    def __init__(self, plan: ModelPlan, rows: Any, outputs: Any) -> None:
        self._threads = plan.session.threads
        if self._threads == DIES_LOADING:
            os._exit(9)
        if self._threads == REFUSES:
            raise MemoryError
        assert set(rows.arrays) == {"x"}
        assert outputs.arrays["x"].shape == (2, plan.max_batch, 4)
        self._batch = plan.max_batch

    def warm_up(self) -> tuple[dict[int, float], dict[int, float]]:
        return {1: FAST, self._batch: FAST}, {}

    at_once = 2

    def begin(self, rows: tuple[int, ...], slot: int) -> Infer:
        assert rows == tuple(range(rows[0], rows[0] + len(rows)))
        assert slot in (0, 1)
        return self

    def wait(self) -> None:
        if self._threads == DIES_RUNNING:
            os._exit(9)
        time.sleep(FAST if self._threads == QUICK else SLOW)

    def finish(self) -> Any:
        return SimpleNamespace(failed=())


class Decode:
    """Has nothing to do: the models take tensors."""

    def __init__(self, limits: dict[str, Any]) -> None:
        assert limits["formats"] == ("jpeg",)


class Single:
    """Wants batches of one."""

    target = 1

    def learn(self, times: dict[int, float], costs: dict[int, float]) -> None:
        self._seconds = times[1]

    def expected(self, size: int) -> float:
        return self._seconds * size


class Largest(Single):
    """Wants the largest batches there are."""

    def __init__(self, plan: ModelPlan) -> None:
        self.target = plan.max_batch


def single(plan: ModelPlan) -> Single:
    return Single()
