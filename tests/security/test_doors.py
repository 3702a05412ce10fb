"""Doors: five kinds of newcomer, and those who send bytes that are no protocol at all."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from parallel_infer import Client
from parallel_infer.errors import ServerUnavailable
from parallel_infer.ipc.channel import new_context
from parallel_infer.ipc.client_socket import ClientSocket, new_key_pair
from parallel_infer.keys.client import Key
from parallel_infer.keys.server import KeyFolder
from parallel_infer.machine import descriptors
from tests.engine.serving import eventually
from tests.security.guarded import PATIENCE, SHORT, dealer, door, echoed, make_keys, throw_garbage


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "keys"


@pytest.fixture
def known(folder):
    return make_keys(folder, "camera", managers=("boss",))


@pytest.fixture
def guarded(folder, known):
    with door("tcp://127.0.0.1:*", folder) as opened:
        yield opened


def test_a_listed_key_comes_in_under_its_name(guarded, known):
    assert echoed(guarded.front.address, known["camera"])
    assert guarded.delivered == [("camera", [b"hello"])]


def strangers(known):
    key = known["camera"]
    return {
        "unknown key": Key(*new_key_pair(), key.server),
        "no key": None,
        "wrong server key": Key(key.public, key.secret, new_key_pair()[0]),
        "stolen public key": Key(key.public, new_key_pair()[1], key.server),
    }


@pytest.mark.parametrize("who", ["unknown key", "no key", "wrong server key", "stolen public key"])
def test_a_stranger_is_not_heard(who, guarded, known):
    assert not echoed(guarded.front.address, strangers(known)[who], patience=SHORT)
    assert echoed(guarded.front.address, known["camera"])  # and all others still are
    assert guarded.delivered == [("camera", [b"hello"])]


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("keys", ["with keys", "without keys"])
def test_bytes_that_are_no_handshake_deliver_nothing(keys, count, folder, known):
    key = known["camera"] if keys == "with keys" else None
    with door("tcp://127.0.0.1:*", folder if key else None) as opened:
        with dealer(opened.front.address, key) as inside:
            inside.send(b"before")
            assert inside.recv() == b"before"
            throw_garbage(opened.front.address, count)
            inside.send(b"after")
            assert inside.recv() == b"after"
        assert echoed(opened.front.address, key)
        assert [frames for _, frames in opened.delivered] == [[b"before"], [b"after"], [b"hello"]]


def test_the_old_protocol_is_refused_where_there_are_no_keys():
    """Random bytes look like ZMTP/1.0 often enough; such a connection says it plainly."""
    with door("tcp://127.0.0.1:*", None) as opened:
        throw_garbage(opened.front.address, 100, seed=2)
        assert echoed(opened.front.address, None)
        assert len(opened.delivered) == 1


def test_without_a_doorkeeper_nobody_comes_in(known):
    context = new_context()
    front = ClientSocket(context, "tcp://127.0.0.1:*", 1 << 20, new_key_pair()[1])
    try:
        key = Key(*new_key_pair(), known["camera"].server)
        assert not echoed(front.address, key, patience=SHORT)
        assert list(front.drain()) == []
    finally:
        front.close()
        context.term()


def test_a_new_key_counts_at_once_and_a_removed_one_no_more(guarded, folder, known):
    (late,) = make_more(folder, known, "late").values()
    assert echoed(guarded.front.address, late)
    (folder / "clients" / "late.pub").unlink()
    assert not echoed(guarded.front.address, late, patience=SHORT)
    assert echoed(guarded.front.address, known["camera"])


def test_a_folder_of_keys_that_hangs_holds_up_nobody_who_is_inside(guarded, folder, known, monkeypatch):
    asked, goes_on, look_up = threading.Event(), threading.Event(), KeyFolder.client

    def hanging(self, public):
        asked.set()
        assert goes_on.wait(60)
        return look_up(self, public)

    address = guarded.front.address
    with dealer(address, known["camera"]) as inside:
        inside.send(b"first")
        assert inside.recv() == b"first"
        monkeypatch.setattr(KeyFolder, "client", hanging)
        with dealer(address, known["boss"]) as waiting:
            waiting.send(b"late")
            assert asked.wait(60)
            inside.send(b"second")
            assert inside.poll(PATIENCE)
            assert inside.recv() == b"second"
            assert not waiting.poll(0)
            goes_on.set()
            assert waiting.poll(PATIENCE)
            assert waiting.recv() == b"late"


def make_more(folder, known, *names):
    from parallel_infer.keys.server import KnownClient, add_client

    found = {}
    for name in names:
        public, secret = new_key_pair()
        add_client(folder, KnownClient(name, public, False))
        found[name] = Key(public, secret, known["camera"].server)
    return found


def test_no_more_than_max_clients_are_let_in(folder, known):
    with door("tcp://127.0.0.1:*", folder, max_clients=2) as opened:
        address = opened.front.address
        with dealer(address, known["camera"]) as first, dealer(address, known["boss"]) as second:
            for inside in (first, second):
                inside.send(b"x")
                assert inside.recv() == b"x"
            assert not echoed(address, known["camera"], patience=SHORT)
            first.send(b"still here")
            assert first.recv() == b"still here"
        eventually(lambda: echoed(address, known["camera"], patience=SHORT))  # as soon as there is room


def test_who_comes_in_vain_is_told_that_there_is_no_room(folder, known):
    for keys, key in ((None, None), (folder, known["camera"])):
        with door("tcp://127.0.0.1:*", keys, max_clients=1) as opened, dealer(opened.front.address, key) as inside:
            inside.send(b"x")
            assert inside.recv() == b"x"
            with Client(opened.front.address, key) as client, pytest.raises(ServerUnavailable, match="max_clients"):
                client.infer("model", b"x", timeout=0.5)


@pytest.mark.parametrize("room", [1, 2])
def test_no_more_than_the_open_files_allow_are_let_in(monkeypatch, room):
    with door("tcp://127.0.0.1:*", None) as opened:
        allowed = descriptors.RESERVE + room
        monkeypatch.setattr(descriptors, "open_now", opened.front.connections)
        monkeypatch.setattr(descriptors, "limit", lambda: allowed)
        monkeypatch.setattr(descriptors, "raise_limit", lambda: allowed)
        with contextlib.ExitStack() as stack:
            for _ in range(room):
                inside = stack.enter_context(dealer(opened.front.address, None))
                inside.send(b"x")
                assert inside.recv() == b"x"
            assert not echoed(opened.front.address, None, patience=SHORT)
        eventually(lambda: echoed(opened.front.address, None, patience=SHORT))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:*", "ipc"])
@pytest.mark.parametrize("keys", ["with keys", "without keys"])
def test_a_connection_that_is_cut_is_told_from_one_that_ends(address, keys, folder, known, tmp_path):
    if address == "ipc":
        address = f"ipc://{tmp_path}/door"
    key = known["camera"] if keys == "with keys" and address.startswith("tcp") else None
    with door(address, folder if key else None) as opened:
        assert echoed(opened.front.address, key)  # it comes, and ends by itself
        with dealer(opened.front.address, key) as sender:
            sender.send(bytes(20 << 20), copy=False)
            eventually(lambda: opened.front.cut > 0)
            opened_before = opened.front.cut
        assert echoed(opened.front.address, key)
        assert opened.front.cut >= opened_before


def test_connections_that_end_by_themselves_are_not_called_cut():
    with door("tcp://127.0.0.1:*", None) as opened:
        for _ in range(20):
            assert echoed(opened.front.address, None)
        assert opened.front.cut == 0


def test_a_name_claimed_at_an_open_door_is_none():
    """ZMTP lets a peer say anything of itself, a `User-Id` too."""
    properties = b"".join(
        bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value
        for name, value in ((b"Socket-Type", b"DEALER"), (b"Identity", b""), (b"User-Id", b"boss"))
    )
    ready = b"\x05READY" + properties
    with door("tcp://127.0.0.1:*", None) as opened:
        host, port = opened.front.address.removeprefix("tcp://").rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=20) as connection, connection.makefile("rb") as heard:
            connection.sendall(b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00NULL".ljust(64, b"\0"))
            connection.sendall(bytes([4, len(ready)]) + ready)
            *_, size = heard.read(64 + 2)  # the greeting, and the head of READY
            assert heard.read(size).startswith(b"\x05READY")
            connection.sendall(b"\0\x05hello")
            assert heard.read(7) == b"\0\x05hello"
        assert opened.delivered == [("", [b"hello"])]
