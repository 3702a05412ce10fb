"""A queue that is full: a client holds back for as long as the server said, and is told so without the server."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from parallel_infer.client.connection import Connection
from parallel_infer.client.endpoint import Address
from parallel_infer.client.holds import LONGEST, Holds
from parallel_infer.client.payload import payload_of
from parallel_infer.client.pending import Outcome, Pending
from parallel_infer.client.requests import job_of
from parallel_infer.errors import QueueFull, ResourceUnavailable
from parallel_infer.protocol import Infer, Status
from tests.client.conftest import FakeServer


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def request(model: str = "m") -> Infer:
    return Infer(id=1, model=model)


def test_a_model_is_left_alone_for_as_long_as_the_server_said() -> None:
    clock = Clock()
    holds = Holds(clock=clock)
    holds.noted(request(), QueueFull("it is full", 0.25))
    clock.now += 0.2
    refusal = holds.refusal(request())
    assert refusal is not None
    assert (str(refusal), refusal.retry_after) == ("it is full", pytest.approx(0.05))
    assert holds.refusal(request("other")) is None
    assert holds.refusal(Status(id=1)) is None
    clock.now += 0.05
    assert holds.refusal(request()) is None


def test_no_server_silences_a_client_for_long() -> None:
    clock = Clock()
    holds = Holds(clock=clock)
    holds.noted(request(), QueueFull("it is full", 1e9))
    clock.now += LONGEST
    assert holds.refusal(request()) is None


@pytest.mark.parametrize(
    "outcome", [ResourceUnavailable("your deadline", 0.25), QueueFull("an older server"), msgspec.Raw(b"")]
)
def test_what_concerns_one_request_holds_no_other(outcome: Outcome) -> None:
    holds = Holds(clock=Clock())
    holds.noted(request(), outcome)
    assert holds.refusal(request()) is None


def test_who_speaks_for_many_passes_everything_on() -> None:
    holds = Holds(0.0, Clock())
    holds.noted(request(), QueueFull("it is full", 0.25))
    assert holds.refusal(request()) is None


class Asking:
    """A connection whose clock stands still, and what came of its requests."""

    def __init__(self, server: FakeServer) -> None:
        self.clock = Clock()
        self.connection = Connection(Address(server.address, None))
        self.connection.holds = Holds(clock=self.clock)

    def send(self, model: str = "busy", timeout: float = 30.0) -> Pending:
        job = job_of(model, timeout, 0, {})
        pending = job.pending(self.connection, payload_of(b"x", None, 1000))
        self.connection.post(pending)
        return pending

    def outcome(self, pending: Pending) -> Outcome:
        return self.connection.wait(pending)


@pytest.fixture
def asking(ipc_server: FakeServer) -> Iterator[Asking]:
    made = Asking(ipc_server)
    yield made
    made.connection.close()


def test_a_full_queue_is_asked_again_when_the_server_said(ipc_server: FakeServer, asking: Asking) -> None:
    first = asking.send()
    refused = asking.outcome(asking.send())
    assert isinstance(refused, QueueFull)
    assert refused.retry_after == 0.25
    assert ipc_server.count == 2
    asking.clock.now += 0.1
    again = asking.send()  # the server is spared
    assert isinstance(again.outcome, QueueFull)
    assert again.outcome.retry_after == pytest.approx(0.15)
    assert ipc_server.count == 2
    assert not isinstance(asking.outcome(asking.send("echo")), Exception)  # another model is none of this
    asking.clock.now += 0.15
    assert isinstance(asking.outcome(asking.send()), QueueFull)
    assert ipc_server.count == 4
    ipc_server.release()
    assert not isinstance(asking.outcome(first), Exception)


def test_who_waits_for_nothing_else_always_asks(ipc_server: FakeServer, asking: Asking) -> None:
    first = asking.send()
    assert isinstance(asking.outcome(asking.send()), QueueFull)
    ipc_server.release()
    asking.outcome(first)
    second = asking.send()
    ipc_server.next()
    ipc_server.next()
    ipc_server.next()
    ipc_server.release()
    assert not isinstance(asking.outcome(second), Exception)
