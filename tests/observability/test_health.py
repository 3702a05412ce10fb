from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from parallel_infer.cli import main
from parallel_infer.gateway.readiness import ReadinessCheck, states
from parallel_infer.ipc.messages import DispatcherStatus, DoorState, WorkerStatus
from tests.engine import graphs
from tests.engine.serving import Server, eventually
from tests.gateway.core_rig import reported

StartOneOfEach = Callable[..., Server]
PAIR = {"a": np.zeros(graphs.WIDE, np.float32), "b": np.ones(graphs.WIDE, np.float32)}
POSTPROCESS = {"p": WorkerStatus("postprocess", "", 0, 0, 0.0)}
SOON = 10.0  # seconds: one for the check, the rest for a busy machine; far less than any other timeout here


def health(server: Server, *arguments: str) -> Result:
    given = ["health", "--server", server.address, "--timeout", str(SOON), *arguments]
    return CliRunner().invoke(main, given)


def test_a_healthy_server(server: Server) -> None:
    assert health(server, "--live").output == "live\n"
    eventually(lambda: health(server).exit_code == 0)
    ran = health(server)
    assert ran.output.startswith("not ready" if ran.exit_code else "ready\n")
    eventually(lambda: json.loads(health(server, "--ready", "--json").output)["ready"])
    found = json.loads(health(server, "--json").output)
    assert found["models"]["detector"]["state"] == "ready"


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    for question in ("--live", "--ready"):
        ran = CliRunner().invoke(
            main, ["health", "--server", f"ipc://{tmp_path}/none", question, "--timeout", "0.3", "--json"]
        )
        found = json.loads(ran.output)
        assert ran.exit_code == 1
        assert found[question.removeprefix("--")] is False
        assert found["problem"].startswith("SERVER_UNAVAILABLE")


@pytest.mark.parametrize("hung", ["decode-0", "infer-pair-0", "postprocess-0", "dispatcher"])
def test_a_hung_process_makes_the_server_not_ready_but_live(start_one_of_each: StartOneOfEach, hung: str) -> None:
    server = start_one_of_each()
    eventually(lambda: health(server).exit_code == 0)
    process = server.child(hung)
    process.suspend()
    try:
        ran = health(server, "--json")
        assert ran.exit_code == 1
        found = json.loads(ran.output)
        assert found["problem"] == ""  # it was the server that answered, in time
        problem = "SERVER_UNAVAILABLE" if hung == "dispatcher" else "DEADLINE_EXCEEDED"
        assert found["models"]["pair"]["problem"].startswith(problem)
        assert health(server, "--live").exit_code == 0
    finally:
        if process.is_running():  # the dispatcher has hung workers replaced
            process.resume()
    eventually(lambda: health(server).exit_code == 0)


def test_a_hung_gateway_is_not_live(start_one_of_each: StartOneOfEach) -> None:
    server = start_one_of_each()
    gateway = server.child("gateway")
    gateway.suspend()
    try:
        ran = CliRunner().invoke(main, ["health", "--server", server.address, "--live", "--timeout", "0.3"])
        assert ran.exit_code == 1
        assert ran.output.startswith("not live: SERVER_UNAVAILABLE")
    finally:
        gateway.resume()
    eventually(lambda: health(server, "--live").exit_code == 0)


@pytest.mark.parametrize(("dead", "state"), [("infer-pair-0", "unavailable"), ("decode-0", "ready")])
def test_a_stage_that_stays_down(start_one_of_each: StartOneOfEach, dead: str, state: str) -> None:
    server = start_one_of_each("restart_budget = 0")  # its first death leaves the place empty for half a minute
    server.child(dead).kill()
    with server.client() as client:
        eventually(lambda: client.status()["processes"][dead]["state"] == "down")
    ran = health(server, "--json")

    assert ran.exit_code == 1
    found = json.loads(ran.output)["models"]["pair"]
    assert found["problem"].startswith("WORKER_LOST")
    assert found["state"] == state


def test_load_is_no_fault(start_one_of_each: StartOneOfEach) -> None:
    server = start_one_of_each("queue_size = 20")
    with server.client() as client:
        futures = [client.submit("pair", PAIR, timeout=30) for _ in range(200)]
        outcome = client.health()["models"]["pair"]
        assert not outcome.startswith("RESOURCE_UNAVAILABLE")
        for future in futures:
            future.exception(30)


def test_the_served_version_gives_the_state() -> None:
    loading = {"name": "m", "state": "loading", "instances": 0}
    closing = {"name": "m", "state": "closing", "instances": 1}
    served = {"name": "m", "state": "degraded", "instances": 1}

    assert states(reported(old=served, new=loading)) == {"m": "degraded"}
    assert states(reported(old=closing, new=served)) == {"m": "degraded"}
    assert states(reported(new=loading)) == {"m": "loading"}
    assert states(reported(m={"instances": 0})) == {"m": "unavailable"}


def test_slow_models_get_the_time_of_their_batches() -> None:
    check = ReadinessCheck(["m", "n"], 0.0, lambda result: None)

    jobs = check.begin(reported(m={}, n={"batch_seconds": 4.0}), 0.0)
    assert [(job.model, job.patience) for job in jobs] == [("m", 1.75), ("n", 13.0)]


def test_a_check_has_one_result() -> None:
    results: list[dict[str, Any]] = []
    check = ReadinessCheck(["m", "n"], 0.0, results.append)
    check.begin(reported(m={}, n={}), 0.0)
    check.settle(1, "ready")
    assert results == []
    check.settle(2, "DEADLINE_EXCEEDED: late")
    check.settle(2, "ready")
    assert results == [
        {
            "ready": False,
            "models": {"m": "ready", "n": "DEADLINE_EXCEEDED: late"},
            "states": {"m": "ready", "n": "ready"},
        }
    ]


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (reported(m={"instances": 0}), "WORKER_LOST: none of its workers is up"),
        (replace(reported(m={}), workers=POSTPROCESS), "WORKER_LOST: no decode worker is up"),
        (reported(), "SERVER_UNAVAILABLE: the server is recovering"),
    ],
)
def test_without_workers_no_job_is_sent(status: DispatcherStatus, problem: str) -> None:
    results: list[dict[str, Any]] = []
    check = ReadinessCheck(["m"], 0.0, results.append)

    assert check.begin(status, 0.0) == []
    assert results[0]["models"] == {"m": problem}
    assert not results[0]["ready"]


def test_a_server_without_models_is_not_ready() -> None:
    results: list[dict[str, Any]] = []
    ReadinessCheck([], 0.0, results.append).begin(reported(), 0.0)

    assert results == [{"ready": False, "models": {}, "states": {}}]


def test_a_door_that_is_away_makes_the_server_not_ready() -> None:
    results: list[dict[str, Any]] = []
    told = {"kind": "http", "addresses": (), "pid": 0, "restarts": 1, "requests": {}, "refused": {}}
    told |= {"in_flight": 0, "bytes_in": 0, "bytes_out": 0}
    doors = {"http": DoorState(state="down", **told), "grpc": DoorState(state="up", **told)}
    check = ReadinessCheck(["m"], 0.0, results.append)
    check.begin(replace(reported(m={}), doors=doors), 0.0)
    check.settle(1, "ready")
    assert not results[0]["ready"]
    assert results[0]["models"] == {"m": "ready"}
    assert results[0]["doors"] == {"http": "SERVER_UNAVAILABLE: it is being started", "grpc": "ready"}


def test_the_file_of_a_model_has_no_state_of_its_own() -> None:
    file = {"name": "m@file", "state": "unavailable", "instances": 0}
    assert states(reported(m={}, file=file)) == {"m": "ready"}
