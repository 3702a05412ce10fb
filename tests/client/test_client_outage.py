"""Why nobody answers: each reason by its own name, said after a second and in the error."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import zmq

from parallel_infer import AsyncClient, Client
from parallel_infer.client import Key, outage
from parallel_infer.client.endpoint import Address
from parallel_infer.client.reachability import reason_for
from parallel_infer.errors import ServerUnavailable
from tests.client.client_calls import in_thread, payload_of
from tests.client.conftest import FakeServer

PAIR = [key.decode() for key in zmq.curve_keypair()]
KEY = Key(*PAIR, PAIR[0])


@pytest.fixture(autouse=True)
def _nothing_was_said(monkeypatch):
    monkeypatch.setattr(outage, "last_said", {})


@pytest.fixture
def listener():
    """A tcp socket that is bound; whoever wants it to listen says so."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def address_of(listener):
    return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def reason(endpoint, key=None, patience=2.0):
    return reason_for(Address(endpoint, key), patience)


def test_an_unknown_host():
    assert "Unknown host" in reason("tcp://no-such-host.invalid:5555")
    assert "does not resolve" in reason("tcp://no-such-host.invalid:5555")
    assert "Unknown host" in reason(f"tcp://{'a' * 70}.{'b' * 70}:5555")


def test_a_port_that_nobody_listens_at():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert "connection is refused" in reason(address_of(bound))


def test_sockets_that_nobody_listens_at(tmp_path):
    assert "there is no such socket" in reason(f"ipc://{tmp_path}/missing")
    assert "there is no such socket" in reason(f"ipc://{tmp_path}/no/folder")
    (tmp_path / "file").touch()
    assert "no socket" in reason(f"ipc://{tmp_path}/file")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "left"))
    assert "connection is refused" in reason(f"ipc://{tmp_path}/left")
    assert "connection is refused" in reason("ipc://@no-such-name")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX") or Path("/proc/self").stat().st_uid != 0, reason="needs root")
def test_sockets_of_another_user(short_folder):
    short_folder.chmod(0o755)
    closed = short_folder / "closed"
    closed.mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(short_folder / "door"))
        bound.listen()
        (short_folder / "door").chmod(0o600)
        found = [said_to_nobody(f"ipc://{short_folder}/door"), said_to_nobody(f"ipc://{closed}/door")]
    assert "may not use the socket" in found[0]
    assert "belongs to root" in found[0]
    assert "may not look into the folder" in found[1]


def said_to_nobody(endpoint):
    """What a user without any rights is told. Everything is imported before the rights are given up."""
    program = (
        "import os, sys; from parallel_infer.client.reachability import reason_for; "
        "from parallel_infer.client.endpoint import Address; os.setgid(65534); os.setuid(65534); "
        "print(reason_for(Address(sys.argv[1], None)))"
    )
    return subprocess.run([sys.executable, "-c", program, endpoint], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("says", "expected"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak ZeroMQ"), (b"SSH-", "not speak"), (b"", "hangs up")],
)
def test_somebody_else_listens(listener, says, expected):
    def answer():
        found, _ = listener.accept()
        with found:
            found.recv(1)
            found.sendall(says)

    thread = threading.Thread(target=answer)
    thread.start()
    assert expected in reason(address_of(listener))
    thread.join()


def test_somebody_who_says_nothing(listener):
    assert "does not answer" in reason(address_of(listener), patience=0.05)


def test_keys(server):
    assert "uses no keys" in reason(server.address, KEY)
    server.stop()
    server.configure = lambda socket: (
        socket.setsockopt(zmq.CURVE_SERVER, 1),
        socket.setsockopt(zmq.CURVE_SECRETKEY, PAIR[1].encode()),
    )
    server.start()
    assert "asks for a key" in reason(server.address)
    assert "key of the server" in reason(server.address, KEY)


def test_a_full_server_is_named_and_tried_again(server, caplog):
    server.stop()
    server.configure = lambda socket: socket.setsockopt(zmq.ZAP_DOMAIN, b"open")
    server.has_no_room = True
    server.start()
    with Client(server.address) as client:
        with pytest.raises(ServerUnavailable, match="takes no more clients.*max_clients"):
            client.infer("echo", b"x", timeout=0.5)
        join = in_thread(lambda: client.infer("echo", b"x", timeout=10))
        with caplog.at_level(logging.WARNING, "parallel_infer.client"):
            said(caplog, "takes no more clients")
            server.has_no_room = False
            assert payload_of(join()) == b"x"


def said(caplog, text):
    """Wait until something was logged."""
    for _ in range(1000):
        if any(text in record.getMessage() for record in caplog.records):
            return
        threading.Event().wait(0.01)
    raise AssertionError(caplog.text)


def test_the_reason_is_said_while_it_is_tried(nobody, caplog):
    with Client(nobody, timeout=30) as client:
        future = client.submit("echo", b"x")
        said(caplog, "there is no such socket")
        record = next(record for record in caplog.records if "no such socket" in record.getMessage())
        assert record.levelno == logging.WARNING
        assert "Trying again for up to" in record.getMessage()
        client.submit("echo", b"y")
    assert isinstance(future.exception(10), ServerUnavailable)
    assert len([record for record in caplog.records if "no such socket" in record.getMessage()]) == 1


def test_a_short_wait_has_its_reason_too(nobody):
    with Client(nobody) as client, pytest.raises(ServerUnavailable, match="there is no such socket"):
        client.infer("echo", b"x", timeout=0.02)
    with (
        Client("tcp://no-such-host.invalid:5555") as client,
        pytest.raises(ServerUnavailable, match="does not resolve"),
    ):
        client.infer("echo", b"x", timeout=3)


def test_the_asynchronous_client_says_it_too(nobody):
    async def ask():
        async with AsyncClient(nobody) as client:
            await client.infer("echo", b"x", timeout=0.3)

    with pytest.raises(ServerUnavailable, match="there is no such socket"):
        asyncio.run(ask())


@pytest.mark.slow  # five seconds; .venv/bin/python -m pytest -m slow tests/client/test_client_outage.py
def test_a_port_that_somebody_else_holds_for_a_while_keeps_no_client_from_the_server():
    """What publishes a container's port may take connections while no container is there, and never say a word."""
    holder = socket.create_server(("127.0.0.1", 0))
    address = address_of(holder)
    with Client(address, timeout=20) as client:  # seconds; ZeroMQ itself waits 30 for the first word
        answer = in_thread(lambda: client.infer("echo", b"late"))
        silent, _ = holder.accept()
        holder.close()
        server = FakeServer(address)
        server.start()
        with silent:
            assert payload_of(answer()) == b"late"
        server.stop()
