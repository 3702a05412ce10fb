"""The supervisor's core without sockets and processes: who is started again and when, who hangs, how a stop goes."""

from __future__ import annotations

import random

import pytest

from parallel_infer.ipc.messages import (
    Alive,
    CloseDoor,
    Drain,
    Drained,
    Expect,
    KillWorker,
    Left,
    Listening,
    Managed,
    ModelServed,
    OpenDoor,
    Ping,
    ProcessReport,
    Started,
    StartFailed,
    StopServer,
    StopWorkers,
    WorkerDown,
)
from parallel_infer.supervisor.child_slot import Role
from parallel_infer.supervisor.core import State
from tests.supervisor.core_rig import ADDRESS, Rig

INSTANCES = ["infer-m-0", "infer-m-1"]
EVERYBODY = [*INSTANCES, "dispatcher", "postprocess-0", "decode-0", "gateway"]


@pytest.fixture
def rig() -> Rig:
    return Rig().serving()


# --- the start --------------------------------------------------------------------------------------------------------


def test_clients_are_let_in_once_everybody_is_up_and_the_dispatcher_takes_every_model() -> None:
    rig = Rig()
    rig.core.start()
    assert rig.processes.started == [f"{name}.1" for name in EVERYBODY]
    rig.all_start()
    assert rig.gateway.news() == []
    assert rig.dispatcher.news() == ["PrepareModel", "Expect", "OpenModel"]
    rig.take(ModelServed("m"))
    assert rig.gateway.news() == ["ModelOpened", "ModelOpened", "OpenDoor"]  # the first went to a closed door
    assert rig.core.state is State.STARTING
    rig.say("gateway", Listening((ADDRESS,)))
    assert (rig.core.state, rig.core.addresses, rig.core.names) == (State.SERVING, [ADDRESS], ["m"])


def test_doors_are_started_as_clients_of_the_gateway_and_waited_for() -> None:
    rig = Rig(http=["127.0.0.1:0"], frigate_bind=["tcp://127.0.0.1:0"])
    rig.core.start()
    rig.all_start()
    rig.take(ModelServed("m"))
    assert rig.of_role(Role.DOOR) == []
    rig.say("gateway", Listening((ADDRESS,)))
    assert [slot.name for slot in rig.of_role(Role.DOOR)] == ["http", "frigate"]
    rig.say("http", Started(), Listening(("http://a",)))
    assert rig.core.state is State.STARTING
    rig.say("frigate", Started(), Listening(("tcp://b",)))
    assert (rig.core.state, rig.core.addresses) == (State.SERVING, [ADDRESS, "http://a", "tcp://b"])
    rig.die("gateway")
    rig.pass_time(0.0)
    rig.all_start()
    rig.say("gateway", Listening((ADDRESS,)))
    assert [slot.running for slot in rig.of_role(Role.DOOR)] == ["http.1", "frigate.1"]


def test_one_that_cannot_start_or_dies_ends_the_start() -> None:
    for event, why in (
        (lambda rig: rig.say("decode-0", StartFailed("OSError: why")), "decode-0 cannot start: OSError: why"),
        (lambda rig: rig.die("gateway", 1), "gateway ended before it was ready (exit code 1)"),
    ):
        rig = Rig()
        rig.core.start()
        event(rig)
        assert (rig.core.state, rig.core.failure) == (State.FAILED, why)
        assert rig.core.stop() == pytest.approx(rig.now + 0.2)
        assert len(rig.processes.killed) == len(rig.processes.running)


def test_a_start_that_takes_too_long_names_who_is_missing() -> None:
    rig = Rig()
    rig.core.start()
    for slot in list(rig.processes.running.values()):
        if slot.name not in ("decode-0", "infer-m-1"):
            rig.say(slot.name, Started())
    rig.pass_time(9.9)
    assert rig.core.state is State.STARTING
    rig.pass_time(0.1)
    assert (
        rig.core.failure == "not ready after 10 s (option start_timeout_ms): nothing was heard from infer-m-1, decode-0"
    )


# --- deaths -----------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_told_of_and_started_again_at_once(rig: Rig) -> None:
    rig.die("decode-0")
    assert rig.dispatcher.told(WorkerDown) == [WorkerDown("decode-0.1")]
    rig.pass_time(0.0)
    assert rig.processes.started == ["decode-0.2"]
    assert rig.slot("decode-0").options.epoch == 2


def test_who_keeps_dying_is_started_later_and_later_and_after_its_budget_much_later(rig: Rig) -> None:
    waits = []
    for _ in range(5):
        rig.die("decode-0")
        began = rig.now
        while "decode-0" not in [slot.name for slot in rig.processes.running.values()]:
            timer = rig.core.next_timer()
            assert timer is not None
            rig.pass_time(max(0.0, timer - rig.now))
        waits.append(round(rig.now - began, 3))
    assert waits == [0.0, 0.0, 0.0, 0.2, 30.0]
    rig.pass_time(60.0)  # all is forgotten
    rig.die("decode-0")
    rig.pass_time(0.0)
    assert rig.slot("decode-0").running == "decode-0.7"


def test_a_model_whose_last_worker_keeps_dying_is_unavailable_until_one_is_up(rig: Rig) -> None:
    rig.die("infer-m-1")
    for _ in range(5):
        rig.pass_time(1.0)
        if "infer-m-0" in [slot.name for slot in rig.processes.running.values()]:
            rig.die("infer-m-0")
    assert "ModelFailed" in rig.dispatcher.news()
    rig.pass_time(31.0)
    rig.all_start()
    assert rig.dispatcher.told(ProcessReport)[-1].models["m"].state == "ready"


def test_a_new_dispatcher_is_told_what_is_served_and_who_lives(rig: Rig) -> None:
    rig.die("decode-0")
    rig.pass_time(0.0)  # a new one, which is not up yet
    rig.die("dispatcher")
    rig.pass_time(0.0)
    rig.forget()
    rig.say("dispatcher", Started())
    prepared, opened, expected = rig.served_after()
    assert (prepared, opened) == (["m"], ["m"])
    live = ("infer-m-0.1", "infer-m-1.1", "postprocess-0.1")
    assert expected == [Expect(live, "gateway.1", ("decode-0.2",))]


def test_a_new_gateway_listens_where_the_old_one_did_and_opens_at_once(rig: Rig) -> None:
    rig.die("gateway")
    assert rig.resources.lent_removed == [1]
    rig.pass_time(0.0)
    rig.say("gateway", Started())
    assert rig.gateway.news() == ["ModelOpened", "OpenDoor"]
    assert rig.slot("gateway").options.bind == (ADDRESS,)  # type: ignore[attr-defined]


# --- hanging ----------------------------------------------------------------------------------------------------------


def test_a_worker_that_does_not_come_back_is_killed_if_it_is_still_the_one(rig: Rig) -> None:
    rig.take(KillWorker("decode-0.1", "hangs"))
    rig.take(KillWorker("decode-0.7", "hangs"))
    assert rig.bury() == ["decode-0.1"]


@pytest.mark.parametrize("role", ["dispatcher", "gateway"])
def test_one_that_answers_no_ping_is_killed_and_its_successor_is_not_blamed(rig: Rig, role: str) -> None:
    rig.pass_time(3600.0)
    assert rig.processes.killed == []
    rig.forget()
    rig.pass_time(2.0, alive=False)
    assert Ping() in rig.dispatcher.sent
    assert Ping() in rig.gateway.sent
    other = "gateway" if role == "dispatcher" else "dispatcher"
    for _ in range(5):
        rig.say(other, Alive())
        rig.pass_time(2.0, alive=False)
    assert rig.bury() == [f"{role}.1"]
    rig.pass_time(0.0)
    rig.say(role, Started())
    rig.pass_time(100.0)
    assert rig.processes.killed == []


def test_a_door_that_hangs_is_replaced_and_the_others_are_not() -> None:
    rig = Rig(http=["127.0.0.1:0"], frigate_bind=["tcp://127.0.0.1:0"]).serving()
    rig.pass_time(3600.0)
    assert {"http.1", "frigate.1"} <= set(rig.processes.asked_for_life)
    for _ in range(6):
        for name in ("dispatcher", "gateway", "frigate"):
            rig.say(name, Alive())
        rig.pass_time(2.0, alive=False)
    assert rig.core.is_fine, "the others serve"
    assert rig.bury() == ["http.1"]
    rig.pass_time(0.0)
    assert {slot.running for slot in rig.of_role(Role.DOOR)} == {"http.2", "frigate.1"}


def test_who_hangs_while_it_starts_again_is_killed_once(rig: Rig) -> None:
    rig.die("decode-0")
    rig.pass_time(10.5)
    assert rig.bury() == ["decode-0.2"]
    rig.pass_time(0.0)
    rig.say("decode-0", Started())
    rig.pass_time(60.0)
    assert rig.processes.killed == []


# --- the stop ---------------------------------------------------------------------------------------------------------


def test_a_stop_waits_for_the_gateway_to_owe_nothing_and_then_lets_everybody_go(rig: Rig) -> None:
    rig.core.drain()
    assert rig.gateway.told(CloseDoor) == [CloseDoor(rig.now + 5.0)]
    assert rig.dispatcher.told(Drain) == [Drain()]
    rig.say("gateway", Drained())
    rig.pass_time(1.0, alive=False)
    assert rig.core.state is State.DRAINING
    rig.say("gateway", Left(3, 2, 0, 0))
    rig.die("gateway", 0)
    assert (rig.core.state, rig.core.outcome, rig.core.uncounted) == (State.STOPPING, Left(3, 2, 0, 0), False)
    assert rig.core.stop() == pytest.approx(rig.now + 4.0)  # what is left of drain_timeout_ms
    assert rig.dispatcher.told(StopWorkers) == [StopWorkers(rig.now + 4.0)]
    assert rig.processes.killed == []


def test_a_gateway_that_does_not_give_up_by_itself_is_given_up_on(rig: Rig) -> None:
    rig.core.drain()
    rig.pass_time(6.9)
    assert rig.core.state is State.DRAINING
    rig.pass_time(0.1)
    assert (rig.core.state, rig.core.outcome) == (State.STOPPING, None)


def test_a_second_signal_ends_the_waiting(rig: Rig) -> None:
    rig.core.drain()
    rig.pass_time(1.0)
    rig.gateway.sent.clear()
    rig.core.hasten()
    assert rig.gateway.told(CloseDoor) == [CloseDoor(rig.now)]
    rig.pass_time(2.0)
    assert rig.core.state is State.STOPPING


def test_who_dies_while_the_server_drains_is_replaced_and_told_of_the_stop(rig: Rig) -> None:
    rig.core.drain()
    rig.forget()
    until = rig.now + 5.0
    for name in ("gateway", "dispatcher"):
        rig.die(name)
        rig.pass_time(0.0)
        rig.say(name, Started())
    assert rig.gateway.told(OpenDoor | CloseDoor) == [OpenDoor(), CloseDoor(until)]
    assert rig.dispatcher.told(Drain) == [Drain()]
    assert rig.core.uncounted
    rig.drained()
    assert rig.core.state is State.STOPPING


def test_a_client_may_stop_the_server(rig: Rig) -> None:
    rig.take(StopServer(7))
    assert [(answer.query, answer.code) for answer in rig.gateway.told(Managed)] == [(7, "")]
    assert rig.core.state is State.DRAINING


def test_doors_are_asked_to_end_and_who_is_not_up_is_killed() -> None:
    rig = Rig(http=["127.0.0.1:0"]).serving()
    rig.die("decode-0")
    rig.pass_time(0.0)
    rig.core.drain()
    rig.drained()
    rig.core.stop()
    assert (rig.processes.asked, rig.processes.killed) == (["http.1"], ["decode-0.2"])


def test_a_stop_while_doors_start_waits_for_clients_that_were_let_in_already() -> None:
    rig = Rig(http=["127.0.0.1:0"])
    rig.core.start()
    rig.all_start()
    rig.say("gateway", Listening(("tcp://127.0.0.1:5555",)))
    rig.pass_time(0.0)
    assert rig.core.state is State.STARTING
    rig.core.drain()
    assert rig.gateway.told(CloseDoor) == [CloseDoor(rig.now + 5.0)]
    rig.drained()
    assert rig.core.state is State.STOPPING
    assert rig.core.outcome is not None


def test_a_stop_before_anything_serves_waits_for_nobody() -> None:
    rig = Rig()
    rig.core.start()
    rig.core.drain()
    assert rig.core.state is State.STOPPING


# --- whatever happens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_in_whatever_order_processes_die_and_hang_the_server_comes_back_or_stops(seed: int) -> None:
    rig, dice = Rig(restart_budget=1000).serving(), random.Random(seed)
    for _ in range(60):
        alive = sorted(slot.name for slot in rig.processes.running.values())
        match dice.randrange(4):
            case 0 if alive:
                rig.die(dice.choice(alive))
            case 1:
                rig.all_start()
            case 2:
                rig.pass_time(dice.choice([0.0, 0.1, 3.0, 12.0]), alive=dice.random() < 0.5)
            case _:
                rig.bury()
        if dice.random() < 0.005:
            rig.core.drain()
    rig.bury()
    if rig.core.state is State.SERVING:
        rig.pass_time(6.0)
        rig.bury()
        rig.pass_time(0.0)
        rig.all_start()
        assert sorted(slot.name for slot in rig.processes.running.values()) == sorted(EVERYBODY)
        assert rig.dispatcher.told(ProcessReport)[-1].models["m"].state == "ready"
        rig.core.drain()
    rig.pass_time(7.1)
    assert rig.core.state is State.STOPPING
