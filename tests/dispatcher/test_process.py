"""The dispatcher's process on a real socket: who is greeted when, and what counts before that."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel_infer.dispatcher.process import DispatcherProcess
from parallel_infer.ipc.channel import Link, new_context
from parallel_infer.ipc.messages import (
    Admit,
    AnswerFormat,
    Expect,
    GatewayUp,
    ModelServed,
    OpenModel,
    PayloadKind,
    Register,
    SlotRef,
    StopWorkers,
    ToGateway,
    ToSupervisor,
)
from parallel_infer.process.options import DispatcherOptions
from stages.pipeline import batching
from tests.dispatcher.core_rig import plan


class Wires:
    """A dispatcher in a thread, and links to it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.context = new_context()
        options = DispatcherOptions(
            log_format="text", log_level="error", epoch=2, address=address, policy="", stage_limit=30.0, cores=2
        )
        self.process = DispatcherProcess(options, batching, lambda: None)
        self._thread = threading.Thread(target=self._live)
        self._thread.start()
        self.supervisor: Link[ToSupervisor] = Link(self.context, address, "supervisor", ToSupervisor)
        self.gateway: Link[ToGateway] = Link(self.context, address, "gateway.1", ToGateway)

    def _live(self) -> None:
        self.process.run_forever()
        self.process.close()

    def close(self) -> None:
        self.supervisor.send(StopWorkers(0.0))
        self.supervisor.flush()
        self._thread.join(10)
        self.supervisor.close()
        self.gateway.close()
        self.context.term()


@pytest.fixture
def wires(tmp_path: Path) -> Iterator[Wires]:
    wires = Wires(f"ipc://{tmp_path}/dispatcher")
    yield wires
    wires.close()


def admit(number: int) -> Admit:
    now = time.monotonic()
    ref = SlotRef("in", number, 1, 1, 1)
    return Admit(number, "m", ref, PayloadKind.PICTURE, (), b"\x80", AnswerFormat.ARRAYS, now, now + 60, 0, "")


def test_what_the_gateway_sends_before_it_was_greeted_is_left_until_it_sends_it_again(wires):
    """The gateway's messages wait in its socket while no dispatcher is there, and reach the new one first of all."""
    wires.gateway.send(admit(1))
    wires.gateway.flush()
    wires.supervisor.send(OpenModel(plan()))
    wires.supervisor.send(Expect((), "gateway.1"))
    wires.supervisor.flush()
    (received,) = wires.gateway.receive()
    assert isinstance(received, Register)
    assert received.epoch == 2
    wires.gateway.send(GatewayUp(2))
    wires.gateway.send(admit(1))
    wires.gateway.flush()
    assert wires.gateway.socket.poll(200) == 0  # neither dropped nor unknown: it waits for a decode worker


def test_the_supervisor_hears_when_jobs_of_a_model_are_taken(wires):
    """Only then may clients be told of it: what the gateway sends by its own connection may come first."""
    wires.supervisor.send(OpenModel(plan()))
    wires.supervisor.flush()
    assert wires.supervisor.receive() == [ModelServed("m")]
