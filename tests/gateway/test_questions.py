"""The gateway's core without sockets and processes: what clients ask besides jobs, and how it leaves."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from msgspec.msgpack import encode
from msgspec.structs import replace

from parallel_infer import protocol
from parallel_infer.gateway.handover import HAS_STOPPED, NOTICE, RETURN
from parallel_infer.ipc.messages import (
    Admit,
    Alive,
    CloseDoor,
    LoadChain,
    LoadModel,
    Manage,
    Managed,
    Ping,
    SlotFate,
    StatusQuery,
    StatusReply,
    StopServer,
    Traced,
    TraceQuery,
    UnloadModel,
)
from tests.gateway.core_rig import LARGE, Rig, reported

HELD, FREE = SlotFate.HELD, SlotFate.FREE


# --- questions --------------------------------------------------------------------------------------------------------


def asked(rig: Rig) -> int:
    """The number of the one question for the status."""
    (query,) = rig.told(StatusQuery)
    return query.query


def test_readiness_is_a_job_through_every_model(rig: Rig) -> None:
    rig.open_model("n")
    ready = rig.ask(protocol.Ready)
    rig.take(StatusReply(asked(rig), reported(m={}, n={})))
    m, n = rig.told(Admit)
    assert (m.model, n.model, ready.replies) == ("m", "n", 0)
    rig.answer(m.job)
    rig.refuse(n.job, "WORKER_LOST")
    assert ready.results == [
        {
            "ready": False,
            "models": {"m": "ready", "n": "WORKER_LOST: for a reason"},
            "states": {"m": "ready", "n": "ready"},
        }
    ]
    assert rig.core.own_status()["models"] == {}  # jobs of our own are not counted
    rig.check_drained()


def test_a_readiness_check_waits_for_a_slot_and_load_is_no_fault(rig: Rig) -> None:
    for _ in range(6):
        rig.infer(timeout=100.0)
    jobs = rig.told(Admit)
    ready = rig.ask(protocol.Ready)
    rig.take(StatusReply(asked(rig), reported(m={})))
    assert rig.told(Admit) == []
    rig.answer(jobs[0].job)
    rig.pass_time(0.1)
    rig.core.send_synthetic()
    rig.answer(rig.admitted().job)
    assert ready.results[0]["ready"]


@pytest.mark.parametrize("silent", ["dispatcher", "slots"])
def test_a_readiness_check_has_an_end(rig: Rig, silent: str) -> None:
    for _ in range(6 if silent == "slots" else 0):
        rig.infer(timeout=100.0)
    ready = rig.ask(protocol.Ready)
    query = asked(rig)
    if silent == "slots":
        rig.take(StatusReply(query, reported(m={})))
    rig.pass_time(1.1)
    code = {"dispatcher": "SERVER_UNAVAILABLE", "slots": "RESOURCE_UNAVAILABLE"}[silent]
    assert ready.results[0]["models"]["m"].startswith(code)
    rig.take(StatusReply(query, reported(m={})))  # late
    assert ready.replies == 1


def test_what_the_gateway_knows_itself_is_told_at_once(rig: Rig) -> None:
    (greeting,) = rig.ask(protocol.Hello).results
    assert (greeting["max_payload"], greeting["max_message"]) == (LARGE, 2 * LARGE)
    assert len(greeting["instances"]) == 1
    assert [model["name"] for model in rig.ask(protocol.Models).results[0]] == ["m"]


def test_the_status_is_the_dispatchers_and_our_own(rig: Rig) -> None:
    status = rig.ask(protocol.Status)
    status_fields = reported().__struct_fields__
    query = asked(rig)
    rig.take(StatusReply(query, reported()))
    rig.take(StatusReply(query, reported()))
    assert status.results[0].keys() == {*status_fields, "gateway", "served", "times"}


def test_the_status_says_draining_from_the_first_job_on_that_is_refused(rig: Rig) -> None:
    asked_before = rig.ask(protocol.Status)
    query = asked(rig)
    rig.take(CloseDoor(rig.now + 10))
    assert rig.infer().errors[0].reason == "stopping"
    rig.take(StatusReply(query, reported()))  # the dispatcher has not heard of the stop yet
    assert asked_before.results[0]["draining"] is True


def test_there_is_one_trace_at_a_time(rig: Rig) -> None:
    trace = rig.ask(protocol.Trace, seconds=1.0)
    (query,) = rig.told(TraceQuery)
    assert rig.ask(protocol.Trace).code == "RESOURCE_UNAVAILABLE"
    rig.infer()
    rig.answer(rig.admitted().job)
    rig.take(Traced(query.query, [], [], complete=True))  # type: ignore[arg-type]
    assert (len(trace.results[0]["admitted"]), len(trace.results[0]["answered"])) == (1, 1)
    assert rig.ask(protocol.Trace).replies == 0


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (protocol.Load, {"name": "n", "path": "n.onnx", "options": {}}, LoadModel(0, "n", "n.onnx", Raw(b"\x80"))),
        (protocol.LoadChain, {"name": "n", "steps": "m > m"}, LoadChain(0, "n", "m > m")),
        (protocol.Unload, {"name": "m"}, UnloadModel(0, "m")),
        (protocol.Stop, {}, StopServer(0)),
    ],
)
def test_the_supervisor_manages(
    rig: Rig, kind: type[protocol.Request], fields: dict[str, Any], message: Manage
) -> None:
    done, failed = rig.ask(kind, **fields), rig.ask(kind, **fields)
    first, second = rig.told(type(message))
    assert replace(first, query=0) == message
    rig.take(Managed(first.query, "", "", Raw(encode({"name": "n"}))))
    rig.take(Managed(second.query, "MODEL_REJECTED", "no model", Raw(encode({}))))
    assert (done.results, failed.code) == ([{"name": "n"}], "MODEL_REJECTED")
    rig.take(Managed(second.query, "", "", Raw(encode({}))))
    rig.check_drained()


def test_a_ping_shows_that_it_is_not_stuck(rig: Rig) -> None:
    rig.take(Ping())
    assert rig.supervisor.told[-1] == Alive()


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_stop_answers_what_is_inside_and_refuses_what_is_new(rig: Rig) -> None:
    inside = rig.infer(id=7)
    job = rig.admitted().job
    rig.stop()
    assert rig.doors.told == [NOTICE]
    assert rig.infer().errors[0].reason == "stopping"
    assert rig.infer(id=7).replies == 0  # sent again: it is inside already
    assert rig.ask(protocol.Lend).errors[0].reason == "stopping"
    assert rig.ask(protocol.Trace).errors[0].reason == "stopping"
    assert rig.ask(protocol.Load, name="n", path="n").errors[0].reason == "stopping"
    assert rig.ask(protocol.LoadChain, name="n", steps="m").errors[0].reason == "stopping"
    assert rig.ask(protocol.Unload, name="m").errors[0].reason == "stopping"
    assert not rig.ask(protocol.Ready).results[0]["ready"]
    assert rig.ask(protocol.Hello).code == ""
    assert not rig.core.has_left()
    rig.answer(job)
    assert inside.answers == [b"answer"]
    rig.leaves_after(1.1)
    left = rig.core.give_up()
    assert (left.answered, left.refused, left.abandoned) == (1, 1, 0)
    assert rig.doors.told == [NOTICE, HAS_STOPPED]


def test_what_is_not_answered_in_time_is_given_up(rig: Rig) -> None:
    request, status = rig.infer(timeout=100.0), rig.ask(protocol.Status)
    rig.stop(20.0)
    rig.stop(5.0)
    assert 4.9 < rig.leaves_after(5.1) < 5.1
    left = rig.core.give_up()
    assert (left.answered, left.refused, left.abandoned) == (0, 0, 1)
    assert request.code == "SERVER_UNAVAILABLE"
    assert status.errors[0].reason == "stopping"


def test_it_stays_for_slow_readers_and_longer_for_clients_that_could_not_be_told(rig: Rig) -> None:
    rig.doors.strangers = True
    rig.doors.read = False
    rig.stop(20.0)
    assert not rig.core.has_left()
    rig.pass_time(10.0)
    assert not rig.core.has_left()
    rig.doors.read = True
    rig.leaves_after(0.1)


def test_the_successor_of_a_gateway_that_died_waits_for_its_clients_to_come_back() -> None:
    rig = Rig(epoch=2)
    try:
        rig.stop()
        assert rig.leaves_after(2 * RETURN) >= RETURN
    finally:
        rig.close()
