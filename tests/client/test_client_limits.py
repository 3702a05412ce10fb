"""What is too large is refused before it is sent, in the same words each time, and disturbs nothing else."""

from __future__ import annotations

import asyncio
import os
import threading

import numpy as np
import pytest
import zmq

from parallel_infer import AsyncClient, Client, protocol
from parallel_infer.client.connection import Connection
from parallel_infer.client.endpoint import Address
from parallel_infer.client.payload import payload_of
from parallel_infer.client.pending import Pending
from parallel_infer.client.requests import job_of
from parallel_infer.errors import BadInput, InferError, ServerUnavailable
from tests.client.client_calls import payload_of as echoed

MOST = 2 << 20  # bytes
LARGE = np.zeros((1000, 1000, 3), np.uint8)
TOO_LARGE = {
    "frame": LARGE,
    "gray frame": LARGE[..., 0],
    "bytes": bytes(MOST + 1),
    "bytearray": bytearray(MOST + 1),
    "memoryview": memoryview(np.zeros(MOST // 4 + 1, np.float32)),
    "tensor": np.zeros((1, 3, 512, 512), np.float32),
    "tensors": {"a": np.zeros(MOST, np.uint8).reshape(2, -1), "b": np.zeros(1, np.float32)},
}


@pytest.fixture
def server(server):
    server.most = MOST
    server.lends = True
    return server


@pytest.fixture
def too_large(tmp_path):
    path = tmp_path / "large.jpg"
    path.write_bytes(bytes(MOST + 1))
    return {**TOO_LARGE, "path": path}


def sizes_received(server):
    return [len(one.payload or b"") for one in list(server.received.queue) if isinstance(one.request, protocol.Infer)]


@pytest.mark.parametrize("kind", [*TOO_LARGE, "path"])
def test_the_same_at_every_repetition_and_in_every_call(server, too_large, kind):
    picture = too_large[kind]

    async def asked_asynchronously():
        async with AsyncClient(server.address) as client:
            return await client.submit("echo", picture)

    errors = []
    with Client(server.address) as client:
        for _ in range(3):
            with pytest.raises(BadInput) as caught:
                client.infer("echo", picture)
            errors.append(caught.value)
        errors += [client.submit("echo", picture).exception(10) for _ in range(3)]
        errors += client.infer_many("echo", [picture] * 3, errors="return")
        errors += [outcome for _, outcome in client.stream("echo", [picture] * 3)]
    for _ in range(2):
        with pytest.raises(BadInput) as caught:
            asyncio.run(asked_asynchronously())
        errors.append(caught.value)
    assert {str(error) for error in errors} == {str(errors[0])}
    assert f"up to {MOST} (option max_payload_mb)" in str(errors[0])
    assert sizes_received(server) == []


@pytest.mark.parametrize("kind", [*TOO_LARGE, "path"])
def test_it_fails_alone(server, too_large, kind):
    pictures = [b"a", too_large[kind], b"b"]
    with Client(server.address) as client:
        for _ in range(2):
            answers = client.infer_many("echo", pictures, errors="return")
            assert [type(answer).__name__ for answer in answers] == ["Answer", "BadInput", "Answer"]
        futures = [client.submit("echo", picture) for picture in pictures]
        assert [type(future.exception(10)).__name__ for future in futures] == ["NoneType", "BadInput", "NoneType"]

    async def many():
        async with AsyncClient(server.address) as client:
            return await client.infer_many("echo", pictures, errors="return")

    assert [type(answer).__name__ for answer in asyncio.run(many())] == ["Answer", "BadInput", "Answer"]
    assert max(sizes_received(server)) == 1


class Endless:
    """A pipe that never ends; what was read of it is counted."""

    taken = 0

    def read(self, size=-1):
        assert size > 0, "all of it"
        self.taken += size
        return bytes(size)


def test_no_more_is_read_of_what_does_not_end_than_the_server_takes(server):
    async def asked_asynchronously(pipe):
        async with AsyncClient(server.address, timeout=30) as client:
            await client.infer("echo", pipe)

    def blocking(pipe):
        with Client(server.address, timeout=30) as client:
            client.infer("echo", pipe)

    def many(pipe):
        with Client(server.address, timeout=30) as client:
            client.infer_many("echo", [pipe])

    for call in (blocking, many, lambda pipe: asyncio.run(asked_asynchronously(pipe))):
        pipe = Endless()
        with pytest.raises(BadInput, match="max_payload_mb"):
            call(pipe)
        assert pipe.taken <= 2 * MOST


def test_what_just_fits_is_sent(server):
    with Client(server.address) as client:
        for _ in range(2):
            assert len(echoed(client.infer("echo", bytes(MOST)))) == MOST
        fits = np.zeros((MOST // 3, 1, 3), np.uint8)
        for _ in range(3):  # as bytes first, then in a slot that was lent
            assert len(echoed(client.infer("echo", fits))) == fits.nbytes


def test_a_frame_to_fill_that_is_too_large_is_refused_when_it_is_asked_for(server):
    async def asked_asynchronously():
        async with AsyncClient(server.address) as client, client.frame(1000, 1000):
            pass

    for _ in range(2):
        with (
            Client(server.address) as client,
            pytest.raises(BadInput, match="max_payload_mb"),
            client.frame(1000, 1000),
        ):
            pass
        with pytest.raises(BadInput, match="max_payload_mb"):
            asyncio.run(asked_asynchronously())

    async def asked():
        async with AsyncClient(server.address) as client, client.frame(1000, 1000) as frame:
            await client.infer("echo", frame)

    with pytest.raises(BadInput, match="max_payload_mb"):
        asyncio.run(asked())


def test_nothing_large_is_sent_before_the_limits_are_known(server):
    """The server has them from its first word on; one that tells none is asked with everything."""
    server.most = None
    with Client(server.address) as client:
        assert len(echoed(client.infer("echo", bytes(3 << 20)))) == 3 << 20
    assert [type(server.received.get(timeout=10).request) for _ in range(2)] == [protocol.Hello, protocol.Infer]


def test_limits_are_those_of_the_server_that_is_there_now(server):
    with Client(server.address, timeout=10) as client:
        assert len(echoed(client.infer("echo", bytes(MOST)))) == MOST
        server.most = MOST // 2
        server.restart()
        assert client.ready()
        with pytest.raises(BadInput, match=f"up to {MOST // 2} "):
            client.infer("echo", bytes(MOST))


def test_a_file_is_not_read_where_it_is_too_large(server, tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with Client(server.address) as client:
        client.ready()
        for call in (client.infer, lambda *given: client.submit(*given).result(10)):
            with pytest.raises(BadInput, match="max_payload_mb"):
                call("echo", path)


def test_a_pipe_is_read_up_to_the_limit(server, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with Client(server.address) as client:
        client.ready()
        writer = threading.Thread(target=pipe.write_bytes, args=(b"from a pipe",))
        writer.start()
        assert echoed(client.infer("echo", pipe)) == b"from a pipe"
        writer.join()
        with pytest.raises(BadInput, match="max_payload_mb"):
            client.infer("echo", "/dev/zero")


@pytest.mark.parametrize(
    ("model", "options", "text"),
    [
        ("m" * 129, {}, "129 characters"),
        ("", {}, "1 to 128"),
        (7, {}, "int"),
        ("m\udc80", {}, "cannot be sent"),
        ("echo", {"class_filter": ["x" * 5000]}, "at most 4096"),
        ("echo", {"top": 2**70}, "cannot be sent"),
        ("echo", {"names": ["\udc80"]}, "cannot be sent"),
        ("echo", {"what": object()}, "cannot be sent"),
    ],
)
def test_names_and_options_beyond_the_limits(server, model, options, text):
    with Client(server.address) as client:
        with pytest.raises(BadInput, match=text):
            client.infer(model, b"x", **options)
        with pytest.raises(BadInput, match=text):
            client.submit(model, b"x", **options).result(10)
        assert echoed(client.submit("echo", b"still here").result(10)) == b"still here"


@pytest.mark.parametrize(
    "picture",
    [
        {1: np.zeros(2, np.float32)},
        {"a\udc80": np.zeros(2, np.float32)},
        {"a": [[1, 2], [3]]},
        {"a" * 70_000: np.zeros(2, np.float32)},
        "no\0path",
        "x" * 5000,
    ],
)
def test_a_picture_that_cannot_be_sent_fails_alone(server, picture):
    with Client(server.address) as client:
        answers = client.infer_many("echo", [b"a", picture, b"b"], errors="return")
        assert [type(answer).__name__ for answer in answers] == ["Answer", "BadInput", "Answer"]
        assert isinstance(client.submit("echo", picture).exception(10), BadInput)
        assert echoed(client.submit("echo", b"still here").result(10)) == b"still here"


def test_management_requests_that_cannot_be_sent(server):
    with Client(server.address) as client:
        with pytest.raises(BadInput, match="header has"):
            client.load("name", "x" * 70_000)
        with pytest.raises(BadInput, match="cannot be sent"):
            client.load("name", "path", what=object())
        assert client.ready()


@pytest.mark.parametrize("timeout", ["5", None, True, float("nan"), float("inf"), 0, -1, 3601, [1]])
def test_odd_timeouts(server, timeout):
    for kind in (Client, AsyncClient):
        with pytest.raises(BadInput, match="timeout"):
            kind(server.address, timeout=timeout)
    if timeout is None:
        return
    with Client(server.address) as client:
        for call in (client.infer, client.submit, client.stream):
            with pytest.raises(BadInput, match="timeout"):
                call("echo", [], timeout=timeout)
        assert echoed(client.infer("echo", b"x", timeout=np.float32(5))) == b"x"


# --- a server that cuts what it does not tell -------------------------------------------------------------------------


@pytest.fixture
def cutting(server):
    """As a server of another kind may be: it tells no limits, and cuts connections over frames beyond one."""
    server.stop()
    server.most = None
    server.configure = lambda socket: socket.setsockopt(zmq.MAXMSGSIZE, 1 << 20)
    server.start()
    return server


def test_what_cuts_the_connection_fails_alone(cutting):
    pictures = [b"%d" % number for number in range(16)]
    pictures.insert(8, bytes(2 << 20))
    with Client(cutting.address, timeout=20) as client:
        answers = client.infer_many("echo", pictures, errors="return")
    bad = answers.pop(8)
    assert isinstance(bad, ServerUnavailable)
    assert "not sent again" in str(bad)
    assert f"{2 << 20} bytes" in str(bad)
    assert [echoed(answer) for answer in answers] == [b"%d" % number for number in range(16)]
    assert cutting.count <= 3 * 16


def test_futures_and_tasks_survive_one_that_cuts(cutting):
    with Client(cutting.address, timeout=20) as client:
        futures = [client.submit("echo", picture) for picture in (b"a", bytes(2 << 20), b"b")]
        assert [echoed(futures[n].result(20)) for n in (0, 2)] == [b"a", b"b"]
        assert isinstance(futures[1].exception(20), ServerUnavailable)

    async def tasks():
        async with AsyncClient(cutting.address, timeout=20) as client:
            asked = [client.infer("echo", picture) for picture in (b"a", bytes(2 << 20), b"b")]
            return await asyncio.gather(*asked, return_exceptions=True)

    first, bad, last = asyncio.run(tasks())
    assert [echoed(first), echoed(last)] == [b"a", b"b"]
    assert isinstance(bad, ServerUnavailable)


# --- the clock --------------------------------------------------------------------------------------------------------


def test_what_has_arrived_counts_before_the_clock(server):
    """Nobody looks at the connection until long after the deadline; the answer came in time."""
    connection = Connection(Address(server.address, None))
    try:
        job = job_of("held", 30.0, 0, {})
        pending = job.pending(connection, payload_of(b"x"))
        connection.post(pending)
        while not pending.sent:
            connection.receive(0.01)
        server.next()
        assert connection.ask(Pending(protocol.Ready(id=connection.number()), 10)) is not None  # all before is read
        server.release()
        assert connection.socket.poll(10_000)
        pending.deadline -= 60  # as if that time had passed
        connection.limit(pending, pending.timeout)
        connection.upkeep()
        assert not isinstance(pending.outcome, InferError)
        assert connection.ask(Pending(protocol.Ready(id=connection.number()), 5)) is not None
    finally:
        connection.close()
