from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from parallel_infer.errors import InferError, ServerUnavailable
from parallel_infer.observe.metrics import ServerMetrics
from tests.engine import graphs
from tests.engine.serving import Server, StartRefused, eventually, free_port
from tests.observability.conftest import Page

StartOneOfEach = Callable[..., Server]
PAIR = {"a": np.zeros(graphs.WIDE, np.float32), "b": np.ones(graphs.WIDE, np.float32)}
PAIR_BYTES = 2 * 4 * graphs.WIDE


def test_jobs_and_their_times_are_on_the_page(start_one_of_each: StartOneOfEach) -> None:
    port = free_port()
    server = start_one_of_each(f"metrics_port = {port}")
    page = Page(port)
    with server.client() as client:
        client.infer_many("pair", [PAIR] * 20)
        client.ready()
        for wrong in ({"model": "pair", "picture": b"no tensors"}, {"model": "nobody", "picture": b"x"}):
            with pytest.raises(InferError):
                client.infer(**wrong)
        answered = 20  # the synthetic job of `ready` is no client's

        assert page.value("up") == 1
        assert page.value("jobs_total", model="pair", outcome="answered") == answered
        assert page.value("jobs_total", model="pair", outcome="BAD_INPUT") == 1
        assert page.value("jobs_total", model="", outcome="UNKNOWN_MODEL") == 1
        assert page.value("job_seconds_count", model="pair") == answered
        for stage in ("decode", "infer", "postprocess"):
            assert page.value("stage_seconds_count", model="pair", stage=stage) == answered
            assert page.value("stage_seconds_bucket", model="pair", stage=stage, le="+Inf") == answered
            assert page.value("wait_seconds_count", model="pair", stage=stage) == answered
            assert page.value("worker_leases_total", stage=stage) >= 1
        status = client.status()
        assert page.value("batch_size_sum", model="pair") == status["models"]["pair"]["batched_rows"] == answered + 1
        assert page.value("bytes_in_total", model="pair") >= 20 * PAIR_BYTES
        assert page.value("bytes_out_total", model="pair") > 20 * 8
        assert page.value("model_state", model="pair", state="ready") == 1
        assert page.value("instances", model="pair") == 1
        assert page.value("queue_jobs", model="pair", stage="decode") == 0
        assert page.value("model_slots_free", ring="rows") == page.value("model_slots", ring="rows") > 0
        no_leaks(page)


def test_a_restart_is_counted(start_one_of_each: StartOneOfEach) -> None:
    port = free_port()
    server = start_one_of_each(f"metrics_port = {port}")
    page = Page(port)
    server.child("decode-0").kill()

    eventually(lambda: page.value("restarts_total", process="decode-0") == 1)
    eventually(lambda: page.value("process_up", process="decode-0") == 1)
    assert page.value("restarts_total", process="postprocess-0") == 0
    with server.client() as client:
        client.infer("pair", PAIR)
    no_leaks(page)


def test_dropped_frames_are_counted_by_source(start_one_of_each: StartOneOfEach) -> None:
    port = free_port()
    server = start_one_of_each(f"metrics_port = {port}")
    page = Page(port)
    with server.client() as client:
        worker = server.child("decode-0")
        worker.suspend()  # so that frames wait and newer ones take their place
        try:
            stream = client.stream("pair", [PAIR] * 12, drop="latest", source="front", in_flight=12)
            first = next_of(stream, lambda: page.samples().get("frames_total", []), worker.resume)
        finally:
            worker.resume()
        outcomes = [outcome for _, outcome in [first, *stream]]

    dropped = sum(isinstance(outcome, InferError) for outcome in outcomes)
    assert page.value("frames_total", source="front", outcome="dropped") >= 1
    assert page.value("frames_total", source="front", outcome="dropped") <= dropped
    assert page.value("frames_total", source="front", outcome="answered") == len(outcomes) - dropped
    assert page.value("frame_age_seconds", source="front") >= 0
    manual = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text("utf-8")
    of_servers = re.sub(r"\n## Routers\n.*?(?=\n## |\Z)", "", manual, flags=re.DOTALL)
    documented = set(re.findall(r"^\| `(parallel_infer_\w+)", of_servers, re.MULTILINE))
    suffix = {"counter": "_total"}
    assert documented == {family.name + suffix.get(family.type, "") for family in page.read()}


def next_of(stream: Any, dropped: Callable[[], Any], resume: Callable[[], None]) -> Any:
    """The first of a stream, whose worker goes on once something was dropped."""

    def go_on() -> None:
        with contextlib.suppress(AssertionError):
            eventually(dropped, patience=5)
        resume()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        return next(stream)
    finally:
        thread.join()


def test_the_page_says_that_nobody_answers() -> None:
    def nobody() -> dict[str, Any]:
        raise ServerUnavailable("nobody is there")

    registry = CollectorRegistry()
    registry.register(ServerMetrics(nobody))

    assert b"parallel_infer_up 0.0" in generate_latest(registry)
    assert generate_latest(registry).count(b"TYPE") == 1


def test_the_server_is_asked_only_when_the_page_is_read() -> None:
    asked = []

    def status() -> dict[str, Any]:
        asked.append(1)
        raise ServerUnavailable("not now")

    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServerMetrics(status))
    assert asked == []
    generate_latest(registry)
    assert asked == [1]


def test_a_server_whose_gateway_hangs_still_has_a_page(start_one_of_each: StartOneOfEach) -> None:
    port = free_port()
    server = start_one_of_each(f"metrics_port = {port}")
    page = Page(port)
    gateway = server.child("gateway")
    gateway.suspend()
    try:
        assert page.value("up") == 0
    finally:
        gateway.resume()
    eventually(lambda: page.value("up") == 1)


def test_the_page_has_a_port_and_a_door_of_its_own(start_one_of_each: StartOneOfEach) -> None:
    port = free_port()
    server = start_one_of_each(f"metrics_port = {port}")

    assert (server.run_directories()[0] / "inside").is_socket()
    assert server.addresses == [f"ipc://{server.folder}/door"]
    with pytest.raises(StartRefused, match=f"127.0.0.1:{port}.*metrics_port") as refused:
        start_one_of_each(f"metrics_port = {port}")
    assert refused.value.code == 1


def test_without_a_port_there_is_neither(start_one_of_each: StartOneOfEach) -> None:
    server = start_one_of_each()

    assert not (server.run_directories()[0] / "inside").exists()
    assert server.supervisor.net_connections("tcp") == []


def no_leaks(page: Page) -> None:
    """Every slot that is taken is taken by something."""
    samples = page.samples()
    for name in ("ingress_slots_leaked", "model_slots_leaked"):
        assert samples[name]
        assert all(value == 0 for _, value in samples[name])


def look(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally:
        connection.close()


def test_there_are_two_pages_and_they_are_only_looked_at(start_one_of_each: StartOneOfEach) -> None:
    port = free_port()
    server = start_one_of_each(f"metrics_port = {port}")
    for path in ("/", "/metric", "/metrics/", "/favicon.ico"):
        assert look(port, path)[0] == 404
    status, headers, body = look(port, "/metrics?from=prometheus", "HEAD")
    assert (status, body) == (200, b"")
    assert "text/plain" in headers["Content-Type"]
    assert int(headers["Content-Length"]) > 0
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        status, headers, _ = look(port, "/metrics", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
    eventually(lambda: look(port, "/health")[0] == 200)
    assert json.loads(look(port, "/health")[2])["ready"] is True
    assert look(port, "/health", "HEAD")[::2] == (200, b"")
    dispatcher = server.child("dispatcher")
    dispatcher.suspend()
    try:
        eventually(lambda: look(port, "/health")[0] == 503)
        assert json.loads(look(port, "/health")[2])["ready"] is False
    finally:
        dispatcher.resume()
