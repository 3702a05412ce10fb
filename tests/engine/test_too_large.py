"""What is too large for a server, whichever way it comes: refused by name, by itself, and the same each time."""

from __future__ import annotations

import itertools
import resource

import msgpack
import numpy as np
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from parallel_infer.errors import BadInput
from tests.engine.serving import eventually

LARGE = np.zeros((2000, 2000, 3), np.uint8)  # 12 MB; the server takes 8
PATIENCE = 20_000  # ms


@pytest.fixture
def raw(server, request):
    """A socket as a client in another language has it."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(server.addresses[0])
        yield socket


def asked(socket, *frames):
    socket.send_multipart(frames)
    assert socket.poll(PATIENCE)
    return msgpack.unpackb(socket.recv_multipart()[0], strict_map_key=False)


def header(number=1, request="infer", **fields):
    given = {"v": 1, "type": request, "id": number, **({"model": "detector"} if request == "infer" else {}), **fields}
    return msgpack.packb(given)


def test_a_frame_fares_the_same_over_every_address_and_each_time(server):
    said = []
    for address in server.addresses:
        with server.client(address) as client:
            for _ in range(3):
                with pytest.raises(BadInput) as caught:
                    client.infer("detector", LARGE)
                said.append(str(caught.value))
    assert set(said) == {said[0]}
    assert f"{LARGE.nbytes} bytes" in said[0]
    assert "max_payload_mb" in said[0]


def test_among_small_ones_it_fails_alone(server, pictures):
    small = (pictures / "chelsea.png").read_bytes()
    for address in server.addresses:
        with server.client(address) as client:
            answers = client.infer_many("detector", [small, LARGE, small, LARGE], errors="return")
            assert [type(answer).__name__ for answer in answers] == ["Answer", "BadInput"] * 2


def test_no_slot_is_lent_for_it_and_none_that_is_lent_takes_it(raw):
    reply = asked(raw, header(1, "lend", slots=1, size=LARGE.nbytes))
    assert (reply["id"], reply["code"]) == (1, "BAD_INPUT")
    assert "max_payload_mb" in reply["message"]
    lent = asked(raw, header(2, "lend", slots=1, size=8 << 20))["result"]
    described = {"kind": "frame", "tensors": [["", "uint8", list(LARGE.shape)]]}
    for number in (3, 4):
        reply = asked(raw, header(number, slot=[lent["ring"], 0, LARGE.nbytes], **described))
        assert (reply["id"], reply["code"]) == (number, "BAD_INPUT")
        assert f"{LARGE.nbytes} bytes" in reply["message"]
    assert asked(raw, header(5, "give_back", ring=lent["ring"]))["type"] == "result"


@pytest.mark.parametrize("size", [(8 << 20) + 1, 33 << 20, 100 << 20], ids=["just", "4 times", "12 times"])
def test_a_payload_of_a_client_that_knows_no_limits(raw, size):
    reply = asked(raw, header(7), bytes(size))
    assert (reply["id"], reply["code"]) == (7, "BAD_INPUT")
    assert f"{size} bytes" in reply["message"]
    assert asked(raw, header(8, "models"))["type"] == "result"  # over the same connection


@pytest.mark.parametrize(
    "fields",
    [
        {"options": {"class_filter": ["x" * 100_000]}},
        {"options": {"class_filter": list(range(100_000))}},
        {"options": {"class_filter": ["x" * 5000]}},
        {"source": "s" * 200},
        {"source": "s" * 10_000_000},
        {"tensors": [["x", "float32", [1] * 9]]},
        {"tensors": [["x", "float32", [1]]] * 40_000},
    ],
)
def test_a_header_that_is_too_large_is_answered_under_its_number(raw, fields):
    reply = asked(raw, header(9, **fields), b"x")
    assert (reply["id"], reply["code"]) == (9, "BAD_INPUT")


def test_more_frames_than_two_are_answered_under_their_number(raw):
    reply = asked(raw, header(10), *[b"x"] * 50)
    assert (reply["id"], reply["code"]) == (10, "BAD_INPUT")
    assert "51 frames" in reply["message"]


def test_what_is_cut_is_logged_and_counted(server):
    with server.client() as client:
        before = client.status()["gateway"]["cut"]
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(server.addresses[1])
            socket.send_multipart([header(1), bytes(160 << 20)], copy=False)
            eventually(lambda: client.status()["gateway"]["cut"] > before)
    assert "max_payload_mb" in server.log.read_text()


def test_beyond_the_open_files_newcomers_are_told(start_server):
    """None of them is left in silence, which would also mean that the gateway tries to let it in without end."""
    server = start_server()
    with server.client() as inside:
        inside.models()
        gateway = server.child("gateway")
        gateway.rlimit(resource.RLIMIT_NOFILE, (96, 96))
        told = [outcome(monitor) for monitor in newcomers(server.addresses[1], 150)]
        assert zmq.EVENT_HANDSHAKE_FAILED_AUTH in told
        assert len(told) == 150
        assert inside.models()
    assert "ulimit -n" in server.log.read_text()


def test_a_limit_that_may_be_raised_is_raised(start_server):
    server = start_server()
    gateway = server.child("gateway")
    hard = gateway.rlimit(resource.RLIMIT_NOFILE)[1]
    assert gateway.rlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    gateway.rlimit(resource.RLIMIT_NOFILE, (96, hard))
    told = [outcome(monitor) for monitor in newcomers(server.addresses[1], 150)]
    assert set(told) == {zmq.EVENT_HANDSHAKE_SUCCEEDED}
    assert "is raised from 96" in server.log.read_text()


def newcomers(address, count):
    """The monitors of so many new connections, while they are open."""
    context = zmq.Context()
    sockets = []
    try:
        for _ in itertools.repeat(None, count):
            socket = context.socket(zmq.DEALER)
            sockets.append(socket)
            monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
            sockets.append(monitor)
            socket.connect(address)
        yield from sockets[1::2]
    finally:
        for socket in sockets:
            socket.close(linger=0)
        context.term()


def outcome(monitor):
    assert monitor.poll(PATIENCE)
    return recv_monitor_message(monitor)["event"]
