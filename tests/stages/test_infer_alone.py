"""A batch that has the machine to itself gets more threads, and the same answer."""

from __future__ import annotations

import pytest

from parallel_infer import Client
from parallel_infer.machine.cores import usable_cores
from parallel_infer.tools.local_server import local_server


@pytest.mark.skipif(usable_cores() < 2, reason="one core: there is nothing to share out")
def test_both_sessions_answer_alike(pictures):
    options = ("--model", "detector=zoo:detector", "--provider", "cpu", "--instances", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARALLEL_INFER_THREADS", "1")
        patch.setenv("PARALLEL_INFER_ALONE_THREADS", "2")
        with local_server(*options) as server, Client(server.address) as client:
            alone = client.infer("detector", pictures / "astronaut.png")
            crowd = client.infer_many("detector", [pictures / "astronaut.png"] * 24)
    for answer in crowd:
        assert answer.names == alone.names
        assert abs(answer.boxes - alone.boxes).max() < 0.5
