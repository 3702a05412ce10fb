"""How the gateway leaves: the pure part, and connections that are handed over to their clients."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from parallel_infer.gateway.handover import Handover, Leaving

LARGE = 8 << 20  # bytes: more than any socket keeps


def leaving(until: float = 100.0) -> Leaving:
    return Leaving(until, owed=3)


def test_while_anything_is_owed_only_the_time_ends_it() -> None:
    stop = leaving()
    stop.look(True, 10.0)
    stop.heard(10.0)
    assert stop.ends == 100.0


def test_once_nothing_is_owed_a_moment_of_silence_ends_it() -> None:
    stop = leaving()
    stop.look(False, 10.0)
    first = stop.ends
    assert 10.0 < first < 11.0
    stop.heard(10.02)
    assert stop.ends > first
    stop.look(True, 10.03)  # something was let in after all: sent again by a dispatcher that restarted
    assert stop.ends == 100.0


def test_clients_that_never_stop_asking_do_not_hold_it_up() -> None:
    stop = leaving()
    now = 10.0
    while now < stop.ends:
        assert now < 12.0
        stop.look(False, now)
        stop.heard(now)
        now += 0.01


def test_a_second_signal_leaves_less_time_and_a_later_one_no_more() -> None:
    stop = leaving()
    stop.hasten(20.0)
    stop.hasten(50.0)
    assert stop.ends == 20.0


@pytest.fixture(params=["ipc", "tcp"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's end and the client's end of a connection."""
    if request.param == "ipc":
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
    yield ours, theirs
    ours.close()
    theirs.close()


def filled(ours: socket.socket) -> int:
    """Send until the kernel takes no more; how many bytes it took."""
    ours.setblocking(False)
    sent = 0
    try:
        while sent < LARGE:
            sent += ours.send(bytes(65536))
    except BlockingIOError:
        pass
    return sent


def read_all(theirs: socket.socket) -> int:
    read = 0
    while data := theirs.recv(65536):
        read += len(data)
    theirs.close()
    return read


def test_a_slow_reader_gets_every_byte_though_it_still_sends(ends: tuple[socket.socket, socket.socket]) -> None:
    """Bytes that nobody reads on our side would make the kernel reset the connection."""
    ours, theirs = ends
    sent = filled(ours)
    handover = Handover([ours.fileno()])
    ours.close()
    theirs.sendall(b"a request that comes too late")
    found: list[int] = []
    reader = threading.Timer(0.2, lambda: found.append(read_all(theirs)))
    reader.start()
    assert handover.wait(time.monotonic() + 60) == 0
    reader.join()
    assert found == [sent]


def test_who_never_reads_is_counted_and_waited_for_no_longer(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = ends
    filled(ours)
    handover = Handover([ours.fileno()])
    ours.close()
    assert handover.wait(time.monotonic() + 0.1) == 1


def test_who_is_owed_nothing_is_not_waited_for(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    ours.sendall(b"read already")
    assert theirs.recv(100) == b"read already"
    handover = Handover([ours.fileno()])
    ours.close()
    assert handover.wait(math.inf) == 0
    assert theirs.recv(100) == b""


def test_a_descriptor_that_has_just_been_closed_is_no_error() -> None:
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    ours.close()
    theirs.close()
    assert Handover([number]).wait(time.monotonic() + 1) == 0
