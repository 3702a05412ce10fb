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
_HANDSHAKE = 5000  # ms; who has connected and gets no word of a server tries anew. ZeroMQ's own limit is 30 s
_HEARTBEAT, _HEARTBEAT_TIMEOUT = 1000, 4000  # ms
_NEVER = 2**31 - 1  # ms
_QUICK_CONNECT_TIMEOUT, _QUICK_HEARTBEAT, _QUICK_HEARTBEAT_TIMEOUT = 1000, 500, 1500  # ms
_BETWEEN = re.compile(r",(?=\s*(?:tcp|ipc)://)")
_PORT = re.compile(r"tcp://.*:(\d{1,20})", re.DOTALL)

_contexts: dict[int, zmq.Context[zmq.Socket[bytes]]] = {}


class Address(NamedTuple):
    """Where a server listens, and the keys to speak with it.

    `endpoint` may name several, with commas between them: one is in use, and the next one when it is lost.
    """

    endpoint: str
    key: Key | None

    @property
    def endpoints(self) -> list[str]:
        """Each of them; a comma within a path is a part of it."""
        return [part.strip() for part in _BETWEEN.split(self.endpoint)]

    @property
    def same_machine(self) -> bool:
        """Whether shared memory can be shared with the server."""
        return self.endpoint.startswith("ipc://") and len(self.endpoints) == 1

    @property
    def answers_at_once(self) -> bool:
        """Whether one look at it takes no time worth speaking of."""
        near = ("ipc://", "tcp://127.", "tcp://localhost:", "tcp://[::1]:")
        return all(endpoint.startswith(near) for endpoint in self.endpoints)


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
    several = len(address.endpoints) > 1
    if "tcp://" in address.endpoint:
        options |= {
            zmq.IPV6: int("[" in address.endpoint),
            zmq.TCP_KEEPALIVE: 1,
            zmq.CONNECT_TIMEOUT: _CONNECT_TIMEOUT,
            zmq.HANDSHAKE_IVL: _HANDSHAKE,
            zmq.HEARTBEAT_IVL: _HEARTBEAT,
            zmq.HEARTBEAT_TIMEOUT: _HEARTBEAT_TIMEOUT,
        }
    if several:  # what takes long is left for another; where to connect to is our decision each time
        options |= {
            zmq.RECONNECT_IVL: _NEVER,
            zmq.RECONNECT_IVL_MAX: 0,
            zmq.CONNECT_TIMEOUT: _QUICK_CONNECT_TIMEOUT,
            zmq.HANDSHAKE_IVL: _QUICK_CONNECT_TIMEOUT,
            zmq.HEARTBEAT_IVL: _QUICK_HEARTBEAT,
            zmq.HEARTBEAT_TIMEOUT: _QUICK_HEARTBEAT_TIMEOUT,
        }
    for option, value in options.items():
        socket.setsockopt(option, value)
    if address.key is not None:
        socket.curve_publickey = address.key.public.encode()
        socket.curve_secretkey = address.key.secret.encode()
        socket.curve_serverkey = address.key.server.encode()
    return socket


def connect(socket: zmq.Socket[bytes], address: Address) -> None:
    """Begin to connect to the first. Raises ValueError for what can't be an address; an absent server is no error."""
    first, *others = address.endpoints
    for endpoint in others:
        _connect(socket, endpoint)
        socket.disconnect(endpoint)
    if first in others or len(set(others)) < len(others):
        raise ValueError(f"{address.endpoint!r} names an address twice")
    _connect(socket, first)


def _connect(socket: zmq.Socket[bytes], endpoint: str) -> None:
    port = _PORT.fullmatch(endpoint)
    if port is not None and not 0 < int(port[1]) < 1 << 16:  # ZeroMQ takes the rest of a division
        raise ValueError(_no_address(endpoint, "a port is a number from 1 to 65535"))
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise ValueError(_no_address(endpoint, error.strerror)) from error


def _no_address(endpoint: str, why: str) -> str:
    return (
        f"{endpoint!r} is no address of a server ({why}); use tcp://HOST:PORT or ipc:///PATH/TO/SOCKET, several with "
        "commas between them"
    )


def _context() -> zmq.Context[zmq.Socket[bytes]]:
    """This process's context: of its own, so that nobody else's `term` waits for our sockets; not kept over a fork."""
    pid = os.getpid()
    if pid not in _contexts:
        _contexts[pid] = zmq.Context()
    return _contexts[pid]
