"""What becomes of requests at doors: deaths, deadlines, priorities, clients that hang up, and a stop of the server."""

from __future__ import annotations

import http.client
import json
import queue
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.doors.door_server import TIMEOUT, Doors, ask, start, work_request
from tests.engine.serving import eventually, running, short_folder

pytest.importorskip("aiohttp", reason="the HTTP door needs the extra http")
grpc = pytest.importorskip("grpc", reason="the gRPC door needs the extra grpc")
triton_grpc = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException

INFER = "/v2/models/work/infer"


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> None:
    """Instead of that of all tests: the shared server takes more memory as tests use more of it, and is looked at when
    it has ended."""


def serving(folder: Path, models: Path) -> Doors:
    one = ("--instances", "1", "--max-batch-size", "1")
    patience = {
        "PARALLEL_INFER_STAGE_LIMIT_MS": "600000",  # a worker may stand still for as long as a test wants it
        "PARALLEL_INFER_SILENCE_LIMIT_MS": "5000",
    }
    return start(folder, "--model", f"work={models}/work.onnx", *one, environment=patience)


@pytest.fixture(scope="module")
def doors(_adopt_orphans: None, tensor_models: Path) -> Iterator[Doors]:
    found = serving(short_folder(), tensor_models)
    with running(found.server):
        yield found


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


@contextmanager
def standstill(doors: Doors, kind: str = "infer-work-") -> Iterator[Callable[[], None]]:
    """Workers of a kind stand still; what is yielded lets them go on."""
    workers = [process for name, process in doors.server.children().items() if name.startswith(kind)]

    def go_on() -> None:
        for worker in workers:
            worker.resume()

    for worker in workers:
        worker.suspend()
    try:
        yield go_on
    finally:
        go_on()


def status_of(doors: Doors) -> dict[str, Any]:
    with doors.server.client() as client:
        found: dict[str, Any] = client.status()
    return found


def work_jobs(doors: Doors) -> int:
    return int(status_of(doors)["models"]["work"]["jobs"])


def post(doors: Doors, value: float, **parameters: Any) -> tuple[int, Any]:
    body = json.loads(work_request((1, value, 0))) | {"parameters": parameters}
    return ask(doors, INFER, json.dumps(body).encode())


def tensor(value: float) -> Any:
    found = triton_grpc.InferInput("x", [1, 3], "FP32")
    found.set_data_from_numpy(np.array([[1, value, 0]], np.float32))
    return found


def call(doors: Doors, value: float, **options: Any) -> float:
    """The model's answer over gRPC."""
    with triton_grpc.InferenceServerClient(doors.grpc) as client:
        return float(client.infer("work", [tensor(value)], **options).as_numpy("value").item())


def value_of(answer: tuple[int, Any]) -> float:
    status, body = answer
    assert status == 200, body
    return float({output["name"]: output["data"] for output in body["outputs"]}["value"][0])


def check_at_rest(doors: Doors) -> None:
    """Nothing is owed, held or lost."""

    def at_rest() -> bool:
        status = status_of(doors)
        gateway = status["gateway"]
        leaks = [model["leaked"] for model in status["models"].values()]
        assert all(leaked == {"rows": 0, "outputs": 0} for leaked in leaks)
        free = all(ring["free"] == ring["slots"] for ring in gateway["ingress"])
        return bool(free and gateway["pending"] == gateway["held"] == status["jobs"] == 0)

    eventually(at_rest)


# --- deaths -----------------------------------------------------------------------------------------------------------


def test_a_door_that_is_killed_is_replaced_and_its_jobs_leave_nothing(
    doors: Doors, threads: ThreadPoolExecutor
) -> None:
    old = {name: doors.server.child(name) for name in ("http", "grpc")}
    with standstill(doors) as go_on:
        owed = [threads.submit(post, doors, 1), threads.submit(call, doors, 2)]
        eventually(lambda: work_jobs(doors) == 2)
        for process in old.values():
            process.kill()
        with pytest.raises((ConnectionError, http.client.HTTPException, OSError)):
            owed[0].result(TIMEOUT)
        with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
            owed[1].result(TIMEOUT)
        go_on()

        def back() -> bool:
            found = status_of(doors)["doors"]
            return all(found[name]["state"] == "up" and found[name]["pid"] != old[name].pid for name in old)

        eventually(back)
    assert value_of(post(doors, 3)) == 3
    assert call(doors, 4) == 4
    found = status_of(doors)["doors"]
    assert [found[name]["restarts"] for name in ("http", "grpc", "frigate")] == [1, 1, 0]
    assert found["http"]["addresses"] == [f"http://{doors.http}"]
    assert ask(doors, "/readyz")[1]["doors"]["grpc"] == "ready"
    check_at_rest(doors)


def test_doors_that_hang_are_replaced(doors: Doors) -> None:
    before = status_of(doors)["doors"]
    for name in before:
        doors.server.child(name).suspend()

    def back() -> bool:
        found = status_of(doors)["doors"]
        return all(door["state"] == "up" and door["pid"] != before[name]["pid"] for name, door in found.items())

    eventually(back)
    assert value_of(post(doors, 8)) == 8
    assert call(doors, 9) == 9
    check_at_rest(doors)


def test_a_gateway_that_is_killed_costs_clients_of_doors_nothing(doors: Doors, threads: ThreadPoolExecutor) -> None:
    with standstill(doors) as go_on:
        owed = [threads.submit(post, doors, 5), threads.submit(post, doors, 6)]
        called = threads.submit(call, doors, 7)
        eventually(lambda: work_jobs(doors) == 3)
        old = doors.server.child("gateway")
        old.kill()
        eventually(lambda: doors.server.children().get("gateway", old).pid != old.pid)
        go_on()
        assert [value_of(request.result(TIMEOUT)) for request in owed] == [5, 6]
        assert called.result(TIMEOUT) == 7
    check_at_rest(doors)


# --- clients that hang up, deadlines, priorities ----------------------------------------------------------------------


@contextmanager
def busy(doors: Doors, threads: ThreadPoolExecutor) -> Iterator[list[Future[Any]]]:
    """The model's worker stands still, with as many requests handed to it as it takes; further ones are queued."""
    with standstill(doors) as go_on:
        handed = [threads.submit(post, doors, value) for value in range(2)]
        eventually(lambda: work_jobs(doors) == len(handed))
        yield handed
        go_on()
        assert [value_of(request.result(TIMEOUT)) for request in handed] == [0, 1]


def test_who_hangs_up_frees_the_job(doors: Doors, threads: ThreadPoolExecutor) -> None:
    with busy(doors, threads):
        connection = http.client.HTTPConnection(doors.http, timeout=TIMEOUT)
        connection.request("POST", INFER, work_request((1, 2, 0)))
        client = triton_grpc.InferenceServerClient(doors.grpc)
        replies: queue.Queue[Any] = queue.Queue()
        running = client.async_infer("work", [tensor(3)], lambda result, error: replies.put(error))
        eventually(lambda: work_jobs(doors) == 4)
        connection.close()
        eventually(lambda: work_jobs(doors) == 3)
        running.cancel()
        assert "cancel" in str(replies.get(timeout=TIMEOUT)).lower()
        eventually(lambda: work_jobs(doors) == 2)
        client.close()
    eventually(lambda: status_of(doors)["doors"]["http"]["requests"].get("499", 0) >= 1)
    eventually(lambda: status_of(doors)["doors"]["grpc"]["requests"].get("CANCELLED", 0) >= 1)
    check_at_rest(doors)


def test_a_deadline_that_passes_is_told_by_name(doors: Doors, threads: ThreadPoolExecutor) -> None:
    with busy(doors, threads):
        status, error = post(doors, 1, timeout=300_000)  # microseconds
        assert (status, error["code"]) == (504, "DEADLINE_EXCEEDED")
        with pytest.raises(InferenceServerException, match="DEADLINE_EXCEEDED"):
            call(doors, 2, timeout=300_000)
        with pytest.raises(InferenceServerException, match=r"(?i)deadline exceeded"):
            call(doors, 3, client_timeout=0.3)  # gRPC's own, of which the request says nothing
        eventually(lambda: work_jobs(doors) == 2)
    check_at_rest(doors)


def test_who_has_priority_goes_first(doors: Doors) -> None:
    replies: queue.Queue[tuple[Any, Any]] = queue.Queue()
    names = [*map(str, range(60)), "urgent"]
    with triton_grpc.InferenceServerClient(doors.grpc) as client:
        client.start_stream(lambda result, error: replies.put((result, error)))
        with standstill(doors, "decode-") as go_on:  # the queue is before that stage
            for number, name in enumerate(names, 1):
                priority = 1 if name == "urgent" else 200
                client.async_stream_infer("work", [tensor(number)], request_id=name, priority=priority)
                eventually(lambda count=number: work_jobs(doors) == count)
            go_on()
            answers = [replies.get(timeout=TIMEOUT) for _ in names]
        client.stop_stream()
    order = [result.get_response().id for result, error in answers if error is None]
    assert sorted(order) == sorted(names)
    assert order.index("urgent") < 40  # though it came last; the first few had been handed out already
    check_at_rest(doors)


# --- the stop ---------------------------------------------------------------------------------------------------------


def test_a_stop_answers_what_is_in_flight_and_tells_everybody_else(
    tensor_models: Path, threads: ThreadPoolExecutor
) -> None:
    folder = short_folder()
    doors = serving(folder, tensor_models)
    try:
        doors.server.wait_until_ready()
        kept = http.client.HTTPConnection(doors.http, timeout=TIMEOUT)  # HTTP keep-alive
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b'{"live":true}'
        replies: queue.Queue[tuple[Any, Any]] = queue.Queue()
        streaming = triton_grpc.InferenceServerClient(doors.grpc)
        streaming.start_stream(lambda result, error: replies.put((result, error)))
        with standstill(doors) as go_on:
            owed = [threads.submit(post, doors, 1), threads.submit(post, doors, 2)]
            streaming.async_stream_infer("work", [tensor(3)])
            eventually(lambda: work_jobs(doors) == 3)
            doors.server.process.send_signal(signal.SIGTERM)
            stopped = threads.submit(doors.server.wait)

            eventually(lambda: status_of(doors)["draining"])
            kept.request("POST", INFER, work_request((1, 9, 0)))
            answer = kept.getresponse()
            error = json.loads(answer.read())
            assert (answer.status, error["code"], answer.headers["Retry-After"]) == (503, "SERVER_UNAVAILABLE", "1")
            assert "stopping" in error["error"]
            with pytest.raises(InferenceServerException, match="UNAVAILABLE.*stopping"):
                call(doors, 9)
            go_on()
            assert [value_of(request.result(TIMEOUT)) for request in owed] == [1, 2]
        result, error = replies.get(timeout=TIMEOUT)
        assert error is None
        assert float(result.as_numpy("value").item()) == 3
        result, error = replies.get(timeout=TIMEOUT)
        assert result is None
        assert "stopping" in str(error)
        streaming.close()
        assert stopped.result(TIMEOUT) == 0
        assert doors.server.segments() == []
    finally:
        kept.close()
        doors.server.close()
        shutil.rmtree(folder, ignore_errors=True)
