"""A door with its doorkeeper, as the gateway runs them, echoing what it is sent; and ways to knock."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import zmq

from parallel_infer.client.endpoint import Address, open_socket
from parallel_infer.gateway.access import AccessControl
from parallel_infer.ipc.channel import Watch, new_context
from parallel_infer.ipc.client_socket import ClientSocket, ZapAuthenticator, new_key_pair
from parallel_infer.keys.client import Key
from parallel_infer.keys.server import KeyPair, KnownClient, add_client, add_server

PATIENCE = 20_000  # ms for what must come
SHORT = 300  # ms for what must not come


def make_keys(folder: Path, *clients: str, managers: tuple[str, ...] = ()) -> dict[str, Key]:
    """A folder of keys with these clients, and what each of them has."""
    server = KeyPair(*new_key_pair())
    add_server(folder, server)
    found = {}
    for name in (*clients, *managers):
        pair = KeyPair(*new_key_pair())
        add_client(folder, KnownClient(name, pair.public, name in managers))
        found[name] = Key(pair.public, pair.secret, server.public)
    return found


class Door:
    """One public address. Everything that is delivered is kept, and sent back."""

    def __init__(self, address: str, keys: Path | None, max_clients: int = 100_000) -> None:
        self._context = new_context()
        self.entrance = AccessControl(None if keys is None else str(keys), max_clients)
        self._keeper = ZapAuthenticator(self._context, self.entrance.authenticate)
        self.front = self.entrance.open(address, lambda secret: ClientSocket(self._context, address, 1 << 20, secret))
        self.delivered: list[tuple[str, list[bytes]]] = []
        self._read, self._write = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        watch = Watch()
        looked_up = self.entrance.descriptor
        for source in (self._keeper.socket, self.front.socket, self.front.monitor, self._read, looked_up):
            watch.add(source)
        while self._read not in (there := watch.wait(None)):
            if self._keeper.socket in there:
                self._keeper.answer()
            if looked_up in there:
                self.entrance.take_in()
            self.front.connections()
            for frames in self.front.drain():
                self.delivered.append((self.front.user(frames[-1]), [frame.bytes for frame in frames[1:]]))
                self.front.send([frame.bytes for frame in frames])

    def close(self) -> None:
        os.write(self._write, b"x")
        self._thread.join()
        self.entrance.settle()
        os.close(self._read)
        os.close(self._write)
        self.front.close()
        self._keeper.close()
        self._context.term()
        self.entrance.close()


@contextlib.contextmanager
def door(address: str, keys: Path | None, max_clients: int = 100_000) -> Iterator[Door]:
    opened = Door(address, keys, max_clients)
    try:
        yield opened
    finally:
        opened.close()


@contextlib.contextmanager
def dealer(address: str, key: Key | None) -> Iterator[zmq.Socket[bytes]]:
    sender = open_socket(Address(address, key))
    sender.linger = 0
    sender.immediate = False
    sender.probe_router = False  # the door would echo it
    sender.connect(address)
    try:
        yield sender
    finally:
        sender.close()


def echoed(address: str, key: Key | None, text: bytes = b"hello", patience: int = PATIENCE) -> bool:
    """Whether a message comes back within `patience` ms."""
    with dealer(address, key) as sender:
        try:
            sender.send(text, zmq.NOBLOCK)
        except zmq.Again:  # its ZeroMQ has already given the door up
            return False
        return bool(sender.poll(patience)) and sender.recv() == text


def throw_garbage(address: str, count: int, seed: int = 1) -> None:
    """Connections that send bytes: random ones, the greeting of ZMTP/1.0 with frames after it, half a greeting."""
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    chance = random.Random(seed)
    for number in range(count):
        with socket.create_connection((host, int(port))) as connection:
            # closed with a reset, so that thousands of closed ports do not stay behind
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(ConnectionError):
                connection.sendall(_garbage(number % 4, chance))


def _garbage(kind: int, chance: random.Random) -> bytes:
    if kind == 0:
        return chance.randbytes(chance.randint(1, 200))
    if kind == 1:  # ZMTP/1.0: an empty identity, then frames: length, flags, body
        body = chance.randbytes(chance.randint(1, 50))
        return b"\x01\x00" + bytes([len(body) + 1, 0]) + body
    if kind == 2:  # ZMTP/3.0 without security, and a READY in the middle of nothing
        return b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00NULL" + bytes(48) + chance.randbytes(40)
    return b"\xff\0\0\0\0\0\0\0\x01\x7f\x03"[: chance.randint(1, 11)]
