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
from parallel_infer.supervisor.child_specs import Role
from parallel_infer.supervisor.liveness import Liveness
from parallel_infer.tools.local_server import LocalServer, local_server
from tests.engine.serving import eventually

SIZE = 2048


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
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
def test_who_hangs_is_replaced_and_the_answer_comes(house, hung):
    payloads = Payloads(SIZE)
    with Client(house.address, timeout=60.0) as client:
        client.infer("identity", {"x": payloads.make(0)})
        before = processes(house)
        for place in hung:
            os.kill(before[place], signal.SIGSTOP)
        futures = [client.submit("identity", {"x": payloads.make(job)}) for job in range(1, 17)]
        for job, future in enumerate(futures, 1):
            answer = future.result(60)
            assert payloads.judge(job, np.asarray(answer.tensors["y"])) is Verdict.RIGHT
        eventually(lambda: all(processes(house).get(place, before[place]) != before[place] for place in hung))
        after = client.status()["processes"]
        assert all(after[place]["restarts"] >= 1 for place in hung)


def place(name: str, role: Role, *, up: bool = True) -> Any:
    """As much of a Place as a Liveness looks at."""
    return SimpleNamespace(role=role, up=up, process=SimpleNamespace(name=name))


def stuck(heart: Liveness, now: float, places: list[Any]) -> list[str]:
    """Who is told to be stuck at a beat."""
    return [asked.process.name for asked, is_stuck in heart.beat(now, places) if is_stuck]


def test_four_unanswered_beats_are_too_many():
    heart = Liveness(8.0)
    places = [place("dispatcher.1", Role.DISPATCHER), place("gateway.1", Role.GATEWAY)]
    for beat in range(4):
        assert stuck(heart, beat * 2.0, places) == []
        assert heart.due == beat * 2.0 + 2.0
        heart.answered("gateway.1")
    assert stuck(heart, 8.0, places) == ["dispatcher.1"]


def test_a_machine_that_stood_still_costs_one_beat():
    heart = Liveness(8.0)
    places = [place("dispatcher.1", Role.DISPATCHER)]
    assert stuck(heart, 0.0, places) == []
    assert stuck(heart, 3600.0, places) == []


def test_successors_workers_and_those_that_start_are_not_blamed():
    heart = Liveness(8.0)
    old, new = place("dispatcher.1", Role.DISPATCHER), place("dispatcher.2", Role.DISPATCHER)
    others = [place("decode-0.1", Role.WORKER), place("gateway.2", Role.GATEWAY, up=False)]
    for beat in range(4):
        assert stuck(heart, beat * 2.0, [old, *others]) == []
    assert stuck(heart, 8.0, [new, *others]) == []
    assert stuck(heart, 10.0, [new, *others]) == []
