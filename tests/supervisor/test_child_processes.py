"""A child's last word counts before its death, in whatever order the two are seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from parallel_infer.errors import ConfigError
from parallel_infer.ipc.channel import Watch
from parallel_infer.ipc.messages import FromChild, StartFailed
from parallel_infer.process.child import FAILED, Child
from parallel_infer.process.options import ChildOptions
from parallel_infer.supervisor.child_processes import ChildProcesses
from parallel_infer.supervisor.child_slot import ChildSlot, Role

WHY = "the reason, as it said"


class Heard:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[FromChild | int | None] = []

    def said(self, slot: ChildSlot, message: FromChild) -> None:
        self.events.append(message)

    def ended(self, slot: ChildSlot, code: int | None) -> None:
        self.events.append(code)


def fail_at_once(child: Child, encoded: bytes) -> None:
    """Entry point of a child that cannot start."""
    raise ConfigError(WHY)


@pytest.mark.parametrize("order", [sorted, lambda there: sorted(there, reverse=True)], ids=["one way", "the other"])
def test_why_a_child_cannot_start_is_told_before_its_end(order: Callable[[set[int]], list[int]]) -> None:
    slot = ChildSlot("odd", Role.WORKER, f"{__name__}:fail_at_once", ChildOptions(log_format="text", log_level="error"))
    watch = Watch()
    processes = ChildProcesses(watch)
    slot.fill(up_by=0.0)
    processes.start(slot)
    while len(there := watch.wait(60)) < 2:  # what it says, and its end
        assert there
    heard = Heard()
    for descriptor in order(there):
        processes.deliver(descriptor, heard)
    assert heard.events == [StartFailed(WHY), FAILED]
    assert watch.wait(0) == set()  # and nothing more will be told of it
