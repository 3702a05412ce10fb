"""A stage whose device computes beside its copies, in the hands of a test."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, ClassVar

from parallel_infer.errors import DeviceLost


class Batch:
    """Runs until the test says that it is over."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.over = threading.Event()

    def wait(self) -> None:
        assert self.over.wait(30)

    def finish(self) -> Any:
        if self.slot == Stage.broken:
            raise DeviceLost("gpu 0 has failed")
        return SimpleNamespace(gathered=0, shapes={}, failed=())


class Stage:
    """A device in the hands of the test."""

    at_once = 2
    on_processor = False
    broken: ClassVar[int] = -1
    begun: ClassVar[dict[int, Batch]] = {}
    change: ClassVar[threading.Condition] = threading.Condition()
    session = SimpleNamespace(describe=lambda: "test")

    def __init__(self, *told: object) -> None:
        Stage.begun.clear()

    def warm_up(self) -> tuple[dict[int, float], dict[int, float]]:
        return {1: 0.001}, {}

    def begin(self, rows: tuple[int, ...], slot: int, alone: bool = False) -> Batch:
        with self.change:
            self.begun[slot] = batch = Batch(slot)
            self.change.notify_all()
        return batch

    def run(self, rows: tuple[int, ...], slot: int, alone: bool = False) -> Any:
        return SimpleNamespace(gathered=0, shapes={}, failed=())

    def close(self) -> None:
        pass

    @classmethod
    def await_begun(cls, slot: int) -> Batch:
        with cls.change:
            assert cls.change.wait_for(lambda: slot in cls.begun, 30)
        return cls.begun[slot]
