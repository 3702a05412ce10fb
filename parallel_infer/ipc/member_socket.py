"""The router's connections to servers: one ROUTER socket for all of them, each connection under a name of its own.

ZeroMQ connects again by itself and then sends what it still holds; here every connection is made once. A new one has a
new name, so that no reply of an old one is taken for one of the new, and nothing is sent late.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

from parallel_infer.ipc.channel import DRAIN, Context, open_socket

log = logging.getLogger(__name__)
_NEVER = 2**31 - 1  # ms
_CONNECT_MS = 3000
_NOW = int(zmq.NOBLOCK)
_NOW_MORE = _NOW | int(zmq.SNDMORE)
_ENDS = {
    zmq.EVENT_DISCONNECTED: "the connection was lost",
    zmq.EVENT_CLOSED: "",  # nobody listens: `reason_for` finds out more
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "it does not speak this protocol, or uses keys otherwise (option key)",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "it does not know this router's key (option key), or takes no more clients",
}


class CurveKeys(NamedTuple):
    """This side's key pair and the public key of all servers, in Z85."""

    public: str
    secret: str
    server: str


class MemberSocket:
    """Connects, sends and receives; tells which connection has come to an end."""

    def __init__(self, context: Context, keys: CurveKeys | None) -> None:
        self.socket = open_socket(context, zmq.ROUTER)
        self.socket.router_mandatory = True
        self.socket.ipv6 = True
        self.socket.reconnect_ivl = _NEVER
        self.socket.connect_timeout = _CONNECT_MS
        self.socket.tcp_keepalive = 1
        if keys is not None:
            self.socket.curve_publickey = keys.public.encode()
            self.socket.curve_secretkey = keys.secret.encode()
            self.socket.curve_serverkey = keys.server.encode()
        address = f"inproc://members-{id(self)}"
        events = 0
        for event in _ENDS:
            events |= int(event)
        self.socket.monitor(address, events)
        self.monitor = open_socket(context, zmq.PAIR)
        self.monitor.connect(address)

    def connect(self, endpoint: str, route: bytes) -> None:
        """Begin to connect to an endpoint, an IP address and no name, under `route`. Raises OSError for no endpoint."""
        self.socket.setsockopt(zmq.CONNECT_ROUTING_ID, route)
        try:
            self.socket.connect(endpoint)
        except zmq.ZMQError as error:
            raise OSError(error.errno, zmq.strerror(error.errno or 0)) from None

    def disconnect(self, endpoint: str) -> None:
        """End the connection to an endpoint, with what was not sent yet."""
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disconnect(endpoint)

    def send(self, route: bytes, header: bytes, payload: Any = None) -> bool:
        """Send a message, a payload of a frame without copying it; False where there is no such connection."""
        send = self.socket.send
        try:
            send(route, _NOW_MORE)
            if payload is None:
                send(header, _NOW)
            else:
                send(header, _NOW_MORE)
                frame = payload.obj if isinstance(payload, memoryview) else payload
                send(frame, _NOW, copy=not isinstance(frame, zmq.Frame))
        except zmq.ZMQError:
            return False
        return True

    def drain(self) -> Iterator[tuple[bytes, bytes, Any]]:
        """Messages that are there: route, header, payload frame (b"": none)."""
        receive = self.socket.recv
        for _ in range(DRAIN):
            try:
                route = receive(_NOW)
            except zmq.Again:
                return
            frame = receive(_NOW, copy=False)
            header: bytes = frame.bytes
            payload: Any = b""
            while frame.more:
                frame = receive(_NOW, copy=False)
                payload = frame
            yield route, header, payload

    def ends(self) -> Iterator[tuple[str, str]]:
        """Endpoints whose connection has ended or did not come about, each with what is known of why."""
        with contextlib.suppress(zmq.Again):
            while True:
                event = parse_monitor_message(self.monitor.recv_multipart(_NOW))
                yield event["endpoint"].decode(), _ENDS[zmq.Event(event["event"])]

    def close(self) -> None:
        """Close every connection."""
        self.socket.disable_monitor()
        self.monitor.close()
        self.socket.close(linger=0)
