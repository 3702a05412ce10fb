"""A dispatcher or a gateway that hangs is replaced, and what was asked of it is answered."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.chaos_support.faults import processes
from benchmarks.chaos_support.payloads import Payloads, Verdict, write_identity_model
from parallel_infer import Client
from parallel_infer.supervisor.child_slot import Role
from parallel_infer.supervisor.liveness import Liveness
from parallel_infer.tools.local_server import LocalServer, local_server
from tests.engine.serving import eventually

SIZE = 2048


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server that waits two seconds for a sign of life."""
    model = tmp_path_factory.mktemp("identity") / "identity.onnx"
    write_identity_model(model, SIZE)
    options = ("--model", f"identity={model}", "--provider", "cpu", "--threads", "1", "--instances", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARALLEL_INFER_SILENCE_LIMIT_MS", "2000")
        patch.setenv("PARALLEL_INFER_RESTART_BUDGET", "1000")
        with local_server(*options) as server:
            yield server


@pytest.mark.parametrize("hung", [("dispatcher",), ("gateway",), ("dispatcher", "gateway")], ids="+".join)
def test_who_hangs_is_replaced_and_the_answer_comes(server, hung):
    payloads = Payloads(SIZE)
    with Client(server.address, timeout=60.0) as client:
        client.infer("identity", {"x": payloads.make(0)})
        before = processes(server)
        for slot in hung:
            os.kill(before[slot], signal.SIGSTOP)
        futures = [client.submit("identity", {"x": payloads.make(job)}) for job in range(1, 17)]
        for job, future in enumerate(futures, 1):
            answer = future.result(60)
            assert payloads.judge(job, np.asarray(answer.tensors["y"])) is Verdict.RIGHT
        eventually(lambda: all(processes(server).get(slot, before[slot]) != before[slot] for slot in hung))
        after = client.status()["processes"]
        assert all(after[slot]["restarts"] >= 1 for slot in hung)


def slot(name: str, role: Role, *, up: bool = True) -> Any:
    """As much of a ChildSlot as a Liveness looks at."""
    return SimpleNamespace(role=role, up=up, process=SimpleNamespace(name=name))


def stuck(liveness: Liveness, now: float, slots: list[Any]) -> list[str]:
    """Who is told to be stuck at a beat."""
    return [asked.process.name for asked, is_stuck in liveness.beat(now, slots) if is_stuck]


def test_four_unanswered_beats_are_too_many():
    liveness = Liveness(8.0)
    slots = [slot("dispatcher.1", Role.DISPATCHER), slot("gateway.1", Role.GATEWAY)]
    for beat in range(4):
        assert stuck(liveness, beat * 2.0, slots) == []
        assert liveness.due == beat * 2.0 + 2.0
        liveness.answered("gateway.1")
    assert stuck(liveness, 8.0, slots) == ["dispatcher.1"]


def test_a_machine_that_stood_still_costs_one_beat():
    liveness = Liveness(8.0)
    slots = [slot("dispatcher.1", Role.DISPATCHER)]
    assert stuck(liveness, 0.0, slots) == []
    assert stuck(liveness, 3600.0, slots) == []


def test_successors_workers_and_those_that_start_are_not_blamed():
    liveness = Liveness(8.0)
    old, new = slot("dispatcher.1", Role.DISPATCHER), slot("dispatcher.2", Role.DISPATCHER)
    others = [slot("decode-0.1", Role.WORKER), slot("gateway.2", Role.GATEWAY, up=False)]
    for beat in range(4):
        assert stuck(liveness, beat * 2.0, [old, *others]) == []
    assert stuck(liveness, 8.0, [new, *others]) == []
    assert stuck(liveness, 10.0, [new, *others]) == []
