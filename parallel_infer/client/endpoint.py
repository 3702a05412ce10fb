"""Where a server listens, and sockets towards it."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import zmq

from parallel_infer.keys.client import Key

_LINGER = 500  # ms that unsent messages may live on after a close
_SEND_LIMIT, _RECEIVE_LIMIT = 1000, 100_000  # messages
_RECONNECT, _RECONNECT_MAX = 20, 500  # ms
_CONNECT_TIMEOUT = 3000  # ms
_HEARTBEAT, _HEARTBEAT_TIMEOUT = 1000, 4000  # ms
_PORT = re.compile(r"tcp://.*:(\d{1,20})", re.DOTALL)

_contexts: dict[int, zmq.Context[zmq.Socket[bytes]]] = {}


class Address(NamedTuple):
    """Where a server listens, and the keys to speak with it."""

    endpoint: str
    key: Key | None

    @property
    def same_machine(self) -> bool:
        """Whether shared memory can be shared with the server."""
        return self.endpoint.startswith("ipc://")

    @property
    def answers_at_once(self) -> bool:
        """Whether one look at it takes no time worth speaking of."""
        return self.same_machine or self.endpoint.startswith(("tcp://127.", "tcp://localhost:", "tcp://[::1]:"))


def open_socket(address: Address) -> zmq.Socket[bytes]:
    """A DEALER socket with every limit set, not yet connected."""
    socket = _context().socket(zmq.DEALER)
    options = {
        zmq.LINGER: _LINGER,
        zmq.SNDHWM: _SEND_LIMIT,
        zmq.RCVHWM: _RECEIVE_LIMIT,
        zmq.PROBE_ROUTER: 1,  # an empty message ahead of everything: the server knows us before we have run
        zmq.RECONNECT_IVL: _RECONNECT,
        zmq.RECONNECT_IVL_MAX: _RECONNECT_MAX,
    }
    if address.endpoint.startswith("tcp://"):
        options |= {
            zmq.IPV6: int("[" in address.endpoint),
            zmq.TCP_KEEPALIVE: 1,
            zmq.CONNECT_TIMEOUT: _CONNECT_TIMEOUT,
            zmq.HEARTBEAT_IVL: _HEARTBEAT,
            zmq.HEARTBEAT_TIMEOUT: _HEARTBEAT_TIMEOUT,
        }
    for option, value in options.items():
        socket.setsockopt(option, value)
    if address.key is not None:
        socket.curve_publickey = address.key.public.encode()
        socket.curve_secretkey = address.key.secret.encode()
        socket.curve_serverkey = address.key.server.encode()
    return socket


def connect(socket: zmq.Socket[bytes], address: Address) -> None:
    """Begin to connect. Raises ValueError for an address that can't be one; an absent server is no error."""
    port = _PORT.fullmatch(address.endpoint)
    if port is not None and not 0 < int(port[1]) < 1 << 16:  # ZeroMQ takes the rest of a division
        raise ValueError(_no_address(address, "a port is a number from 1 to 65535"))
    try:
        socket.connect(address.endpoint)
    except zmq.ZMQError as error:
        raise ValueError(_no_address(address, error.strerror)) from error


def _no_address(address: Address, why: str) -> str:
    return f"{address.endpoint!r} is no address of a server ({why}); use tcp://HOST:PORT or ipc:///PATH/TO/SOCKET"


def _context() -> zmq.Context[zmq.Socket[bytes]]:
    """This process's context: of its own, so that nobody else's `term` waits for our sockets; not kept over a fork."""
    pid = os.getpid()
    if pid not in _contexts:
        _contexts[pid] = zmq.Context()
    return _contexts[pid]
