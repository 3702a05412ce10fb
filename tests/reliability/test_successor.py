"""What a new dispatcher makes of messages that were meant for its predecessor, and of those it was never greeted by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_infer.ipc.channel import Link
from parallel_infer.ipc.messages import (
    Expect,
    GatewayUp,
    OpenModel,
    Overdue,
    Refused,
    Register,
    Released,
    ToDecodeWorker,
    ToGateway,
)
from tests.dispatcher.core_rig import plan
from tests.dispatcher.test_process import Wires, admit


@pytest.fixture
def wires(tmp_path: Path) -> Iterator[Wires]:
    """A dispatcher of epoch 2."""
    wires = Wires(f"ipc://{tmp_path}/dispatcher")
    yield wires
    wires.close()


def tell(link: Link[Any], *messages: object) -> None:
    for message in messages:
        link.send(message)
    link.flush()


def test_what_a_gateway_said_to_the_predecessor_is_not_taken_for_an_introduction(wires):
    tell(wires.gateway, GatewayUp(1), admit(1))
    tell(wires.supervisor, Expect((), "gateway.1"))
    assert wires.gateway.receive() == [Register(2)]
    assert wires.gateway.socket.poll(200) == 0, "a job was refused because the models were not known yet"


def test_a_gateway_is_greeted_once(wires):
    tell(wires.supervisor, OpenModel(plan()), Expect((), "gateway.1"))
    assert wires.gateway.receive() == [Register(2)]
    tell(wires.supervisor, Expect((), "gateway.1"))
    assert wires.gateway.socket.poll(200) == 0


def test_a_worker_that_the_predecessor_did_not_greet_is_greeted(wires):
    """Its hello went to the predecessor, and a connection that is made anew says none."""
    silent: Link[ToDecodeWorker] = Link(wires.context, wires.address, "decode-0.1", ToDecodeWorker)
    try:
        tell(wires.supervisor, Expect((), "", ("decode-0.1",)))
        assert silent.receive() == [Register(2)]
    finally:
        silent.close()


def test_the_slot_of_a_job_that_nobody_knows_is_released(wires):
    """Its answer died with the worker that had returned the lease, and the gateway gave it up at its deadline."""
    tell(wires.supervisor, OpenModel(plan()), Expect((), "gateway.1"))
    assert wires.gateway.receive() == [Register(2)]
    tell(wires.gateway, GatewayUp(2), Overdue(7))
    assert wires.gateway.receive() == [Released(7)]


def test_a_job_that_the_gateway_gave_up_gets_no_second_slot_holder(wires):
    """A queued job is nobody's to read: it leaves at once, and its slot is free."""
    tell(wires.supervisor, OpenModel(plan()), Expect((), "gateway.1"))
    assert wires.gateway.receive() == [Register(2)]
    tell(wires.gateway, GatewayUp(2), admit(7), Overdue(7))
    (refused,) = wires.gateway.receive()
    assert isinstance(refused, Refused)
    assert (refused.job, refused.code) == (7, "DEADLINE_EXCEEDED")
    received: ToGateway = refused
    assert received.slot == 0
