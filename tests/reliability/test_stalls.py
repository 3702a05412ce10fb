"""A server that did not run for a while, though its clients did: it serves whoever asks now, and accuses nobody."""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.overload import MODEL, SIDE, write_work_model
from parallel_infer import Client
from parallel_infer.client.futures import InferFuture
from parallel_infer.ipc.channel import Link, Router, new_context
from parallel_infer.ipc.messages import CancelJob, ToDispatcher
from parallel_infer.tools.local_server import LocalServer, local_server

QUEUE, IN_FLIGHT = 12, 8
PAYLOAD = {"x": np.ones((SIDE, SIDE), np.float32)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server with a short queue."""
    model = tmp_path_factory.mktemp("work") / "work.onnx"
    write_work_model(model, 300)
    with local_server(
        *("--model", f"{MODEL}={model}", "--provider", "cpu", "--queue-size", str(QUEUE), "--instances", "1"),
        *("--threads", "1", "--decode-workers", "1", "--log-level", "error"),
    ) as server:
        yield server


def give_up_on(client: Client, jobs: int) -> None:
    """Ask again and again, a few at a time, until so many jobs have run out of time."""
    ended: queue.SimpleQueue[InferFuture] = queue.SimpleQueue()
    for _ in range(IN_FLIGHT):
        client.submit(MODEL, PAYLOAD, timeout=0.1, callback=ended.put)
    for number in range(jobs):
        assert ended.get().exception() is not None
        if number < jobs - IN_FLIGHT:
            client.submit(MODEL, PAYLOAD, timeout=0.1, callback=ended.put)


def test_a_server_that_stood_still_serves_those_who_still_wait(served: LocalServer) -> None:
    """Jobs that their clients gave up meanwhile take nobody's place in the queue."""
    with Client(served.address, timeout=60.0) as client:
        for _ in range(20):
            client.submit(MODEL, PAYLOAD).result()  # over the connection that goes on to ask
        pids = served.processes()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            give_up_on(client, 6 * IN_FLIGHT)
            waiting = [client.submit(MODEL, PAYLOAD) for _ in range(QUEUE)]
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        assert [future.exception() for future in waiting] == [None] * QUEUE
        status = client.status()
        assert status["refused"].get("RESOURCE_UNAVAILABLE", 0) == 0
        assert status["refused"].get("killed", 0) == 0
        assert all(process["restarts"] == 0 for process in status["processes"].values())


def test_what_was_queued_can_be_withdrawn_until_it_leaves(tmp_path: Path) -> None:
    context = new_context()
    address = f"ipc://{tmp_path}/link"
    router: Router[ToDispatcher] = Router(context, address, ToDispatcher)
    link: Link[ToDispatcher] = Link(context, address, "peer", ToDispatcher)
    try:
        first, second, twin = CancelJob(1), CancelJob(2), CancelJob(2)
        for message in (first, second):
            link.send(message)
        assert not link.withdraw(twin)  # equal, but another one
        assert link.withdraw(second)
        assert not link.withdraw(second)
        link.flush()
        assert not link.withdraw(first)
        received: list[object] = []
        while not any(isinstance(message, CancelJob) for message in received):
            received += [message for _, message in router.receive(10.0)]
        assert [message for message in received if isinstance(message, CancelJob)] == [first]
    finally:
        link.close()
        router.close()
        context.term()
