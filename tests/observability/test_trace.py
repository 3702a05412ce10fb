from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from parallel_infer import Client
from parallel_infer.cli import main
from parallel_infer.errors import BadInput, ResourceUnavailable
from parallel_infer.observe.chrome_trace import chrome_trace
from tests.engine import graphs
from tests.engine.serving import Server

PAIR = {"a": np.zeros(graphs.WIDE, np.float32), "b": np.ones(graphs.WIDE, np.float32)}


@pytest.fixture
def busy(server: Server) -> Iterator[Server]:
    """A server that is at work for the length of a test."""
    done = threading.Event()

    def work() -> None:
        with server.client() as client:
            while not done.is_set():
                client.infer_many("pair", [PAIR] * 64, in_flight=16)

    thread = threading.Thread(target=work)
    thread.start()
    yield server
    done.set()
    thread.join()


def test_a_trace_of_a_server_at_work(busy: Server, tmp_path: Path) -> None:
    output = tmp_path / "trace.json"
    given = ["trace", "--server", busy.address, "--seconds", "0.5", "-o", str(output), "--json"]
    ran = CliRunner().invoke(main, given)
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.output)
    assert said["complete"] is True
    assert said["processes"]["infer-pair-0"]["work"] > 0
    trace = json.loads(output.read_text())
    events = trace["traceEvents"]
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}

    assert {"gateway", "dispatcher", "infer-pair-0", "postprocess-0"} <= set(tracks.values())
    assert any(name.startswith("decode-") for name in tracks.values())
    check_slices(events, tracks)
    check_jobs(events)
    levels = [event["args"]["jobs"] for event in events if event["ph"] == "C"]
    assert max(levels) > 1
    assert min(levels) >= 0


def check_slices(events: list[dict[str, Any]], tracks: dict[int, str]) -> None:
    """A process does one thing at a time, inside the time of the trace."""
    for number, name in tracks.items():
        slices = sorted((e for e in events if e["ph"] == "X" and e["tid"] == number), key=lambda e: e["ts"])
        assert slices, name
        for before, after in pairwise(slices):
            assert after["ts"] >= before["ts"] + before["dur"] - 1, name
        if name.startswith("infer"):
            assert all(len(e["args"]["jobs"]) == int(e["name"].rpartition("x")[2]) for e in slices)


def check_jobs(events: list[dict[str, Any]]) -> None:
    """Jobs pass the stages in their order, and arrows begin and end in slices."""
    began: dict[int, dict[str, float]] = {}
    for event in events:
        if event["ph"] == "X":
            for job in event["args"].get("jobs", ()):
                began.setdefault(job, {})[event["cat"]] = event["ts"]
    whole = [stages for stages in began.values() if {"decode", "infer", "postprocess"} <= set(stages)]
    assert len(whole) > 10
    assert all(stages["decode"] < stages["infer"] < stages["postprocess"] for stages in whole)
    for arrow in [event for event in events if event["ph"] in "stf"][:100]:
        assert any(
            event["ph"] == "X" and event["tid"] == arrow["tid"] and 0 <= arrow["ts"] - event["ts"] <= event["dur"]
            for event in events
        )


def test_one_trace_at_a_time(server: Server) -> None:
    def record(client: Client, seconds: float) -> None:
        """Record; where the other is at it, once it is done."""
        with contextlib.suppress(ResourceUnavailable):
            return client.trace(seconds)
        return record(client, seconds)

    def record_while(first: threading.Thread, client: Client) -> None:
        while first.is_alive():
            client.trace(0.001)

    with server.client() as one, server.client() as other:
        first = threading.Thread(target=record, args=(one, 1.0))
        first.start()
        with pytest.raises(ResourceUnavailable, match="a trace is being recorded"):
            record_while(first, other)
        first.join()
        assert other.trace(0.01)["complete"]  # and then there is room for one again


def test_an_idle_server_has_an_empty_trace(server: Server) -> None:
    with server.client() as client:
        recorded = client.trace(0.05)

    assert recorded["work"] == recorded["admitted"] == recorded["answered"] == []
    assert recorded["seconds"] >= 0.05
    json.dumps(chrome_trace(recorded))


@pytest.mark.parametrize("seconds", [0, -1, 61, 1e9])
def test_a_trace_has_a_limit(server: Server, seconds: float) -> None:
    with server.client() as client, pytest.raises(BadInput):
        client.trace(seconds)


def test_jobs_that_fail_are_in_the_trace(server: Server) -> None:
    with server.client() as client:
        found: list[Any] = []
        tracer = threading.Thread(target=lambda: found.append(client.trace(0.5)))
        tracer.start()
        while tracer.is_alive():
            with pytest.raises(BadInput):
                client.infer("detector", b"no picture")
        tracer.join()
    (recorded,) = found

    assert {span[1] for span in recorded["work"]} == {"decode"}
    assert all(span[3] >= recorded["started"] - 1 and span[4] > 0 for span in recorded["work"])
