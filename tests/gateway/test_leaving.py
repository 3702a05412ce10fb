"""How the gateway leaves: the pure part, and connections that are handed over to their clients."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from parallel_infer.gateway import handover as handover_module
from parallel_infer.gateway.handover import Handover, Leaving

LARGE = 8 << 20  # bytes: more than any socket keeps


class Stop(Leaving):
    """A stop whose surroundings a test decides about."""

    strangers = False
    read = True

    def looks(self, now: float, pending: int = 0) -> bool:
        return self.continues(now, pending, lambda: self.strangers, lambda: self.read)


def ends(stop: Stop, now: float) -> float:
    """When a loop that wakes up for its timer, and for nothing else, would be through."""
    while stop.looks(now):
        assert stop.ends > now
        now = stop.ends
    return now


def test_while_anything_is_owed_only_the_time_ends_it() -> None:
    stop = Stop(100.0, pending=3)
    assert stop.looks(10.0, pending=1)
    stop.note_request(10.0)
    assert stop.ends == 100.0
    assert not stop.looks(100.0, pending=1)


def test_once_nothing_is_owed_a_moment_of_silence_ends_it() -> None:
    stop = Stop(100.0, pending=3)
    assert stop.looks(10.0)
    stop.note_request(10.02)
    assert stop.looks(10.06)
    assert stop.looks(10.07, pending=1)  # sent again by a dispatcher that restarted
    assert stop.ends == 100.0
    assert 11.0 < ends(stop, 11.0) < 11.2


def test_clients_that_could_not_be_told_get_more_time_to_ask() -> None:
    told, stranger = Stop(100.0, pending=0), Stop(100.0, pending=0)
    stranger.strangers = True
    assert ends(told, 10.0) < 10.2 < ends(stranger, 10.0) < 11.1


def test_clients_that_never_stop_asking_do_not_hold_it_up() -> None:
    stop = Stop(100.0, pending=0)
    stop.strangers = True
    now = 10.0
    while stop.looks(now):
        assert now < 12.0
        stop.note_request(now)
        now += 0.01


def test_slow_readers_are_waited_for_until_the_time_is_over() -> None:
    stop = Stop(20.0, pending=0)
    stop.read = False
    for now in np.arange(10.0, 20.0, 0.1):
        assert stop.looks(now)
    assert not stop.looks(20.0)
    stop = Stop(20.0, pending=0)
    stop.read = False
    assert stop.looks(10.0)
    assert stop.looks(15.0)
    stop.read = True
    assert 15.0 < ends(stop, 15.0) < 15.1


def test_a_second_signal_leaves_less_time_and_a_later_one_no_more() -> None:
    stop = Stop(100.0, pending=1)
    stop.looks(10.0, pending=1)
    stop.hasten(20.0)
    stop.hasten(50.0)
    assert stop.ends == 20.0


@pytest.fixture(params=["ipc", "tcp"])
def connection(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
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


def test_a_slow_reader_gets_every_byte_though_it_still_sends(connection: tuple[socket.socket, socket.socket]) -> None:
    """Bytes that nobody reads on our side would make the kernel reset the connection."""
    ours, theirs = connection
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


def test_who_never_reads_is_counted_and_waited_for_no_longer(connection: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = connection
    filled(ours)
    handover = Handover([ours.fileno()])
    ours.close()
    assert handover.wait(time.monotonic() + 0.1) == 1


def test_who_is_owed_nothing_is_not_waited_for(connection: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = connection
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


def test_who_has_read_everything_and_keeps_the_connection_is_not_waited_for(
    connection: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = connection
    sent = filled(ours)
    handover = Handover([ours.fileno()])
    ours.close()
    taken: list[int] = []

    def read() -> None:
        while data := theirs.recv(1 << 16):
            taken.append(len(data))

    reader = threading.Thread(target=read)
    reader.start()
    assert handover.wait(time.monotonic() + 600) == 0
    reader.join()
    assert sum(taken) == sent
    assert theirs.fileno() >= 0  # still open at its end


def test_who_is_gone_takes_nothing_any_more(connection: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = connection
    filled(ours)
    theirs.close()
    handover = Handover([ours.fileno()])
    ours.close()
    assert handover.wait(time.monotonic() + 600) == 0


def test_sockets_that_do_not_end_are_waited_for_while_anything_is_to_be_taken(
    monkeypatch: pytest.MonkeyPatch, connection: tuple[socket.socket, socket.socket]
) -> None:
    monkeypatch.setattr(handover_module, "IDLE", 0.05)
    ours, theirs = connection
    sent = filled(ours)
    handover = Handover([ours.fileno()])
    never, over = threading.Event(), threading.Event()
    waiting = threading.Thread(target=lambda: (handover.outlast(never.wait, time.monotonic() + 600), over.set()))
    waiting.start()
    assert not over.wait(0.3)  # the client has not read
    taken = 0
    while taken < sent:
        taken += len(theirs.recv(1 << 16))
    assert over.wait(30)
    never.set()
    waiting.join()
    assert handover.wait(0.0) == 0


def test_sockets_that_end_are_not_waited_for_longer(connection: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = connection
    filled(ours)
    handover = Handover([ours.fileno()])
    handover.outlast(lambda: None, time.monotonic() + 600)
    assert handover.wait(0.0) == 1
