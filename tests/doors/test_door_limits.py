"""What clients of the doors may take: silent connections, bodies that never end, answers that nobody reads."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import select
import socket
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.doors.door_server import TIMEOUT, Doors, ask, start, work_request
from tests.engine import graphs
from tests.engine.serving import eventually, running, short_folder

pytest.importorskip("aiohttp", reason="the HTTP door needs the extra http")
pytest.importorskip("grpc", reason="the gRPC door needs the extra grpc")

QUEUE = 32  # places of a model's queue
LIMITS = {
    "PARALLEL_INFER_HTTP_IDLE_MS": "1500",
    "PARALLEL_INFER_HTTP_SILENCE_MS": "1000",
    "PARALLEL_INFER_HTTP_MEMORY_MB": "8",
    "PARALLEL_INFER_MAX_PAYLOAD_MB": "4",
    "PARALLEL_INFER_MAX_CLIENTS": "300",
    "PARALLEL_INFER_QUEUE_SIZE": str(QUEUE),
}
LIMIT = 4 * 2**20 * 4 // 3 + 65536  # bytes of a body
HEAD = b"POST /v2/models/work/infer HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> None:
    """Instead of that of all tests: the shared server takes more memory as tests use more of it, and is looked at when
    it has ended."""


@pytest.fixture(scope="module")
def doors(_adopt_orphans: None, tensor_models: Path) -> Iterator[Doors]:
    folder = short_folder()
    found = start(
        folder,
        *("--model", f"work={tensor_models}/work.onnx", "--model", f"large={graphs.large(folder / 'large.onnx')}"),
        environment=LIMITS,
    )
    with running(found.server):
        yield found


def connect(doors: Doors, receive_buffer: int = 0) -> socket.socket:
    host, port = doors.http.split(":")
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(TIMEOUT)
    connection.connect((host, int(port)))
    return connection


def read_all(connection: socket.socket) -> bytes:
    """What the server sends until it ends the connection."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionResetError:
        pass  # it did not read what we sent last
    return found


def error_in(answer: bytes) -> tuple[int, dict[str, str]]:
    """Status and body of an error."""
    head, _, body = answer.partition(b"\r\n\r\n")
    found: dict[str, str] = json.loads(body)
    assert found["error"] == found["message"]
    return int(head.split()[1]), found


def check_serves(doors: Doors) -> None:
    status, answer = ask(doors, "/v2/models/work/infer", work_request((0, 7, 2)))
    assert (status, [output["data"] for output in answer["outputs"]]) == (200, [[7], [20]])


# --- silence ----------------------------------------------------------------------------------------------------------


def test_a_connection_that_says_nothing_is_ended(doors: Doors) -> None:
    with connect(doors) as connection:
        assert read_all(connection) == b""


def test_a_head_that_comes_byte_by_byte_is_given_up(doors: Doors) -> None:
    with connect(doors) as connection:
        connection.settimeout(0.05)
        for byte in HEAD + b"X-Slow: " + b"a" * 6000:
            try:
                connection.sendall(bytes([byte]))
                if connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("the connection was never ended")
    check_serves(doors)


@pytest.mark.parametrize("framing", [b"Content-Length: 1000\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"])
def test_a_body_that_stops_coming_is_given_up(doors: Doors, framing: bytes) -> None:
    with connect(doors) as connection:
        connection.sendall(HEAD + framing)
        status, error = error_in(read_all(connection))
    assert status == 408
    assert "http_silence_ms" in error["error"]


def test_a_client_that_takes_nothing_of_its_answer_is_ended(doors: Doors) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [16, 1], "data": [1.0] * 16}
    request = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    head = HEAD.replace(b"work", b"large") + b"Content-Length: %d\r\n\r\n" % len(request)
    with connect(doors, receive_buffer=4096) as connection:
        connection.sendall(head + request)  # the answer has 16 MB, far more than sockets buffer
        poller = select.poll()
        poller.register(connection, select.POLLHUP)
        assert poller.poll(TIMEOUT * 1000)
        assert len(read_all(connection)) < 16 * 2**20
    check_serves(doors)


def test_many_half_open_connections_keep_nobody_out(doors: Doors) -> None:
    beginnings = [b"", b"POST", HEAD, HEAD + b"Content-Length: 5000000\r\n\r\n{"]
    with ExitStack() as stack:
        for number in range(200):
            connection = stack.enter_context(connect(doors))
            connection.sendall(beginnings[number % len(beginnings)])
        for _ in range(5):
            check_serves(doors)


def test_more_connections_than_there_may_be_are_told_so(doors: Doors) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(doors)) for _ in range(305)]
        status, error = error_in(read_all(connections[-1]))
    assert (status, error["code"]) == (503, "RESOURCE_UNAVAILABLE")
    assert "max_clients" in error["error"]
    eventually(lambda: ask(doors, "/healthz")[0] == 200)


# --- size -------------------------------------------------------------------------------------------------------------


def chunked(data: bytes, size: int = 65536) -> bytes:
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def sent(doors: Doors, data: bytes) -> bytes:
    """The answer to bytes of which the server may not take all."""
    with connect(doors) as connection:
        with suppress(ConnectionError):
            connection.sendall(data)
        return read_all(connection)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Content-Length: %d\r\n" % (LIMIT + 1), b""),
        (b"Content-Length: %d\r\nExpect: 100-continue\r\n" % (LIMIT + 1), b""),
        (b"Transfer-Encoding: chunked\r\n", chunked(bytes(LIMIT + 1))),
        *(
            (b"Content-Encoding: %s\r\nContent-Length: %d\r\n" % (name, len(bomb)), bomb)
            for name, bomb in ((b"gzip", gzip.compress(bytes(100_000_000))), (b"deflate", zlib.compress(bytes(10**8))))
        ),
    ],
    ids=["length", "expect", "chunked", "gzip", "deflate"],
)
def test_a_body_that_is_too_large_is_refused_at_the_limit(doors: Doors, headers: bytes, body: bytes) -> None:
    answer = sent(doors, HEAD + headers + b"\r\n" + body)
    assert b"100 Continue" not in answer
    status, error = error_in(answer)
    assert status == 413
    assert "max_payload_mb" in error["error"]


def test_json_that_grows_when_it_is_read_is_refused(doors: Doors) -> None:
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [' + b"[]," * 900_000 + b"[]]}]}"
    status, error = ask(doors, "/v2/models/work/infer", body)
    assert status == 413
    assert "http_memory_mb" in error["error"]
    check_serves(doors)


def test_promises_of_long_bodies_take_no_memory(doors: Doors) -> None:
    """The bodies of all together are bounded by what has come of them."""
    with ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(connect(doors))
            connection.sendall(HEAD + b"Content-Length: 5000000\r\n\r\n{")
        check_serves(doors)


def test_bodies_of_others_take_the_memory_for_a_while(doors: Doors) -> None:
    most = LIMIT - 100
    with connect(doors) as first, connect(doors) as second:
        for connection in (first, second):
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % most)
        first.sendall(bytes(most - 1))
        second.sendall(bytes(most // 2 + 2**20))
        refused = select.select([first, second], [], [], 60.0)[0]  # whoever's bytes came last
        status, error = error_in(read_all(refused[0]))
    assert (status, error["code"]) == (503, "RESOURCE_UNAVAILABLE")
    assert "http_memory_mb" in error["error"]
    check_serves(doors)


# --- what is no request ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60) + b"\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(200)) + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX\x00Y: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345", 400),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Content-Length: -5\r\n\r\n", 400),
        (HEAD + b"Content-Length: +5\r\n\r\n12345", 400),
        (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", 400),
        (HEAD + b"Expect: a miracle\r\nContent-Length: 1\r\n\r\n1", 417),
        (HEAD.replace(b"/infer", b"/nothing") + b"Expect: a miracle\r\nContent-Length: 1\r\n\r\n1", 417),
    ],
)
def test_what_is_no_request_gets_an_error_of_ours_and_one_only(doors: Doors, request_bytes: bytes, status: int) -> None:
    answer = sent(doors, request_bytes)
    assert len(re.findall(rb"HTTP/1\.[01] \d", answer)) == 1  # nothing behind it was taken for a second request
    found, error = error_in(answer)
    assert found == status
    assert error["code"] == "BAD_INPUT"
    check_serves(doors)


# --- shares -----------------------------------------------------------------------------------------------------------


def test_a_client_of_a_door_takes_no_more_than_its_share(doors: Doors) -> None:
    """Clients are told apart by the hosts they come from, where there are no keys."""
    worker = doors.server.child("infer-work-0")

    def ask_from(host: str, *rows: tuple[float, float, float]) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(doors.http, timeout=TIMEOUT, source_address=(host, 0))
        connection.request("POST", "/v2/models/work/infer", work_request(*rows))
        return connection

    def pending() -> int:
        return int(status_of(doors)["models"]["work"]["jobs"])

    with ExitStack() as stack:
        worker.suspend()
        stack.callback(worker.resume)
        modest = [stack.enter_context(closing(ask_from("127.0.0.2", (1, 5, 0))))]
        eventually(lambda: pending() == 1)
        greedy = stack.enter_context(closing(ask_from("127.0.0.3", *([(1.0, 1.0, 0.0)] * QUEUE))))
        answer = greedy.getresponse()
        error = json.loads(answer.read())
        assert (answer.status, error["code"]) == (503, "RESOURCE_UNAVAILABLE")
        assert f"clients share the {QUEUE} places" in error["error"]  # those of tests a moment ago count too
        modest.append(stack.enter_context(closing(ask_from("127.0.0.2", (1, 6, 0)))))
        eventually(lambda: pending() >= 2)
        worker.resume()
        found = [json.loads(connection.getresponse().read())["outputs"][0]["data"] for connection in modest]
    assert found == [[5], [6]]


# --- what the server tells of its doors -------------------------------------------------------------------------------


def status_of(doors: Doors) -> dict[str, Any]:
    with doors.server.client() as client:
        found: dict[str, Any] = client.status()
    return found


def test_status_and_metrics_tell_of_every_door(doors: Doors) -> None:
    ask(doors, "/infer/nobody", b"x")

    def counted() -> bool:
        return status_of(doors)["doors"]["http"]["refused"].get("UNKNOWN_MODEL", 0) >= 1

    eventually(counted)
    found = status_of(doors)["doors"]
    assert list(found) == ["http", "grpc", "frigate", "imagezmq"]
    assert found["http"]["addresses"] == [f"http://{doors.http}"]
    assert found["grpc"]["addresses"] == [f"grpc://{doors.grpc}"]
    assert found["frigate"]["addresses"] == [doors.frigate]
    assert found["http"]["pid"] == doors.server.child("http").pid
    assert found["http"]["requests"]["404"] >= 1
    assert found["http"]["bytes_in"] > 0
    assert {door["state"] for door in found.values()} == {"up"}
    page = ask(doors, "/metrics")[1].decode()
    assert 'parallel_infer_door_requests_total{door="http",status="404"}' in page
    assert 'parallel_infer_door_refused_total{code="UNKNOWN_MODEL",door="http"}' in page
    assert 'parallel_infer_door_requests_in_flight{door="grpc"} 0.0' in page


def test_readiness_tells_of_every_door(doors: Doors) -> None:
    ready = {"http": "ready", "grpc": "ready", "frigate": "ready", "imagezmq": "ready"}
    status, found = ask(doors, "/readyz")
    assert (status, found["ready"], found["doors"]) == (200, True, ready)
    with doors.server.client() as client:
        assert client.health()["doors"] == ready


def test_the_file_of_a_model_is_in_no_list_of_models(doors: Doors) -> None:
    zeros = bytes(4 * 3 * 416 * 416)
    assert ask(doors, "/v2/models/detector/infer", zeros, Inference_Header_Content_Length="0")[0] == 200
    assert "detector@file" in str(status_of(doors)["models"])
    with doors.server.client() as client:
        assert "@" not in str(client.models())
        assert "@" not in str(client.health())
        assert "@" not in str(client.status()["served"])
        with pytest.raises(Exception, match="served are: detector, large, work$"):
            client.infer("nobody", b"x")
    for path in ("/readyz", "/v2/models/stats", "/model/registry"):
        assert "@" not in str(ask(doors, path)[1])
