"""What a child says counts before its death, also where both are seen at once."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from parallel_infer.errors import ConfigError, InferError
from parallel_infer.ipc.channel import Watch
from parallel_infer.ipc.messages import FromChild, Started, StartFailed
from parallel_infer.process.child import FAILED, Child, reason
from parallel_infer.process.options import ChildOptions
from parallel_infer.supervisor.child_processes import ChildProcesses
from parallel_infer.supervisor.child_slot import ChildSlot, Role

WHY = "the reason, as it said"


def say_and_wait(child: Child, encoded: bytes) -> None:
    """Entry point of a child that starts, and has nothing to do."""
    child.tell(Started())
    signal.pause()


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


def test_why_a_child_cannot_start_is_told_before_its_end() -> None:
    slot = ChildSlot("odd", Role.WORKER, f"{__name__}:fail_at_once", ChildOptions(log_format="text", log_level="error"))
    watch = Watch()
    processes = ChildProcesses(watch)
    slot.fill(up_by=0.0)
    processes.start(slot)
    heard = Heard()
    while FAILED not in heard.events:
        (descriptor,) = watch.wait(60)
        processes.deliver(descriptor, heard)
    assert heard.events == [StartFailed(WHY), FAILED]
    assert watch.wait(0) == set()  # and nothing more will be told of it


def test_what_a_process_that_was_killed_had_said_is_told() -> None:
    slot = ChildSlot("odd", Role.WORKER, f"{__name__}:say_and_wait", ChildOptions(log_format="text", log_level="error"))
    watch = Watch()
    processes = ChildProcesses(watch)
    slot.fill(up_by=0.0)
    processes.start(slot)
    watch.wait(60)
    processes.kill(slot)
    heard = Heard()
    (descriptor,) = watch.wait(60)
    processes.deliver(descriptor, heard)
    assert heard.events == [Started(), -signal.SIGKILL]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError("option bind: taken"), "option bind: taken"),
        (InferError("no room"), "no room"),
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "/x/keys"), "/x/keys: Permission denied"),
        (OSError("no number"), "no number"),
        (MemoryError(), "there is not enough memory; allow this process more (ulimit -v, or memory of the container)"),
        (KeyError("width"), "an internal error, KeyError: 'width'"),
    ],
)
def test_a_reason_names_a_class_only_where_the_fault_is_inside(error: Exception, said: str) -> None:
    assert reason(error) == said
