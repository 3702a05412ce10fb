"""A child's last word counts before its death, in whatever order the two are seen."""

from __future__ import annotations

import errno
import os
import select

import pytest

from parallel_infer.errors import ConfigError, InferError
from parallel_infer.ipc.channel import Watch
from parallel_infer.process.child import Child, reason
from parallel_infer.process.options import ChildOptions
from parallel_infer.supervisor.child_specs import ChildSlot, Role
from parallel_infer.supervisor.children import Children
from parallel_infer.supervisor.processes import ProcessSupervisor, State

WHY = "the reason, as it said"


def fail_at_once(child: Child, encoded: bytes) -> None:
    """Entry point of a child that cannot start."""
    raise ConfigError(WHY)


def starting() -> ProcessSupervisor:
    """A supervisor that is starting."""
    supervisor = ProcessSupervisor.__new__(ProcessSupervisor)
    supervisor.state = State.STARTING
    supervisor.failure = ""
    supervisor._children = Children(Watch(), start_timeout=30.0)
    return supervisor


def test_why_a_child_cannot_start_is_told_though_its_death_is_seen_first() -> None:
    options = ChildOptions(log_format="text", log_level="error")
    slot = ChildSlot("odd", Role.WORKER, f"{__name__}:{fail_at_once.__name__}", options)
    supervisor = starting()
    supervisor._children.start_child(slot)
    process = slot.process
    assert process is not None
    assert select.select([process.sentinel], [], [], 30)[0]
    supervisor._on_child(slot, process, process.sentinel)
    assert supervisor.state == State.FAILED
    assert supervisor.failure == f"odd cannot start: {WHY}"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError("option bind: taken"), "option bind: taken"),
        (InferError("no room"), "no room"),
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "/x/keys"), "/x/keys: Permission denied"),
        (OSError("no number"), "no number"),
        (KeyError("width"), "an internal error, KeyError: 'width'"),
    ],
)
def test_a_reason_names_a_class_only_where_the_fault_is_inside(error: Exception, said: str) -> None:
    assert reason(error) == said
