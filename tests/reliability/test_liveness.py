"""A dispatcher or a gateway that hangs is replaced, and what was asked of it is answered."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.chaos_support.faults import processes
from benchmarks.chaos_support.payloads import Payloads, Verdict, write_identity_model
from parallel_infer import Client
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
