"""Channels: ZeroMQ sockets that carry lists of typed messages. The only server file that imports zmq.

`send` only queues; `flush` sends everything that waits for one peer as one frame, so that answers which are ready
together travel together. `receive` drains a socket before anybody sleeps on it again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, Generic, TypeVar

import msgspec
import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from parallel_infer.descriptors import Duplicates, End

Received = TypeVar("Received")
log = logging.getLogger(__name__)


class Hello(msgspec.Struct, frozen=True):
    """A peer has connected for the first time.

    One that connects again, to a new Router of the same address, is silent: who is expected has to be greeted.
    """


_encode = msgspec.msgpack.Encoder().encode
_DRAIN = 256  # frames taken in one go, so that no socket starves the rest of a loop
_RECONNECT_MS = 10
_HANDSHAKE_MS = 5000  # a newcomer that has not said who it is by then is sent away
_MOMENT_MS = 500  # that what was sent has to leave, at least
_HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_BACKLOG = 1024  # newcomers the kernel keeps while others are let in
# Plain numbers: combining zmq's flag enums costs more than the call they are for.
_NOW = int(zmq.NOBLOCK)
_MORE = int(zmq.SNDMORE)
_READABLE = int(zmq.POLLIN)
_NOW_MORE = _NOW | _MORE


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A context with one I/O thread; its owner closes it."""
    return zmq.Context(io_threads=1)


def _open(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.linger = 0
    # Credit bounds what is under way; a high-water mark here would only drop what is owed.
    socket.sndhwm = 0
    socket.rcvhwm = 0
    return socket


class Router(Generic[Received]):
    """The bound end of many links; peers are known by the identity they connect with."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, received: Any) -> None:
        self._socket = _open(context, zmq.ROUTER)
        self._socket.router_mandatory = True  # a peer that is gone is an error, not a silent loss
        self._socket.bind(address)
        self._decode = msgspec.msgpack.Decoder(list[received]).decode
        self._waiting: dict[bytes, list[Any]] = {}
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)

    def receive(self, timeout: float | None) -> Iterator[tuple[bytes, Received | Hello]]:
        """Messages with their senders; waits up to `timeout` seconds (None: for ever) for the first."""
        receive = self._socket.recv
        for number in range(_DRAIN):
            try:
                peer = receive(_NOW)
            except zmq.Again:
                if number or not self._poller.poll(_milliseconds(timeout)):
                    return
                peer = receive()
            frame = receive()
            if not frame:
                yield peer, Hello()
                continue
            for message in self._decode(frame):
                yield peer, message

    def send(self, peer: bytes, message: object) -> None:
        """Queue a message for a peer."""
        waiting = self._waiting.get(peer)
        if waiting is None:
            self._waiting[peer] = [message]
        else:
            waiting.append(message)

    def reach(self, peer: bytes, message: object) -> bool:
        """Send a message at once; False where the peer is not connected."""
        try:
            self._socket.send(peer, _NOW_MORE)
        except zmq.ZMQError:
            return False
        self._socket.send(_encode([message]))
        return True

    def flush(self) -> None:
        """Send what waits. Peers that are gone get nothing: who watches over them says so."""
        send = self._socket.send
        for peer, messages in self._waiting.items():
            try:
                send(peer, _NOW_MORE)
            except zmq.ZMQError:
                continue
            send(_encode(messages))
        self._waiting.clear()

    @property
    def has_more(self) -> bool:
        """Whether something lies there to be received."""
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & _READABLE)

    def close(self, until: float | None = None) -> None:
        """Close the socket; what was sent has until `until` to leave."""
        self._socket.close(linger=_linger(until))


class Link(Generic[Received]):
    """The connected end of a link to a Router, under an identity of one's own."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, identity: str, received: Any) -> None:
        self.socket = _open(context, zmq.DEALER)
        self.socket.identity = identity.encode()
        self.socket.reconnect_ivl = _RECONNECT_MS
        self.socket.probe_router = True  # says Hello
        self.socket.connect(address)
        self._decode = msgspec.msgpack.Decoder(list[received]).decode
        self._waiting: list[object] = []

    def receive(self) -> list[Received]:
        """At least one frame's messages; sleeps until there are any."""
        return self._decode(self.socket.recv())

    def drain(self) -> list[Received]:
        """What is there already, without waiting."""
        messages: list[Received] = []
        for _ in range(_DRAIN):
            try:
                messages += self._decode(self.socket.recv(_NOW))
            except zmq.Again:
                break
        return messages

    def send(self, message: object) -> None:
        """Queue a message."""
        self._waiting.append(message)

    def withdraw(self, message: object) -> bool:
        """Take a queued message back; False where it has left."""
        for index in range(len(self._waiting) - 1, -1, -1):
            if self._waiting[index] is message:
                del self._waiting[index]
                return True
        return False

    def flush(self) -> None:
        """Send what waits as one frame."""
        if self._waiting:
            self.socket.send(_encode(self._waiting))
            self._waiting.clear()

    def close(self, until: float | None = None) -> None:
        """Close the socket; what was sent has until `until` to leave."""
        self.socket.close(linger=_linger(until))


class AnswerLink:
    """From a postprocess worker to the gateway: messages, and payloads as frames of their own."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self._socket = _open(context, zmq.PUSH)
        self._socket.reconnect_ivl = _RECONNECT_MS
        self._socket.connect(address)
        self._messages: list[object] = []
        self._payloads: list[Any] = []

    def attach(self, payload: Any) -> int:
        """Let a payload travel with the next frame; returns its number (from 1)."""
        self._payloads.append(payload)
        return len(self._payloads)

    def send(self, message: object) -> None:
        """Queue a message."""
        self._messages.append(message)

    def flush(self) -> None:
        """Send what waits as one message of several frames."""
        if self._messages:
            self._socket.send_multipart([_encode(self._messages), *self._payloads], copy=not self._payloads)
            self._messages.clear()
            self._payloads.clear()

    def close(self, until: float | None = None) -> None:
        """Close the socket; what was sent has until `until` to leave."""
        self._socket.close(linger=_linger(until))


class AnswerInlet(Generic[Received]):
    """The gateway's end of all AnswerLinks."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, received: Any) -> None:
        self.socket = _open(context, zmq.PULL)
        self.socket.bind(address)
        self._decode = msgspec.msgpack.Decoder(list[received]).decode

    def drain(self) -> Iterator[tuple[Received, list[zmq.Frame]]]:
        """Messages that are there, each with the payload frames of its batch."""
        for _ in range(_DRAIN):
            try:
                frames = self.socket.recv_multipart(_NOW, copy=False)
            except zmq.Again:
                return
            for message in self._decode(frames[0].buffer):
                yield message, frames[1:]

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class Admission(Enum):
    """What a newcomer is told, as the status of RFC 27."""

    WELCOME = b"200"
    REFUSED = b"400"
    FULL = (
        b"500"  # the client hears of it, and decides when to try again; a connection that is just closed hears nothing
    )


class Doorkeeper:
    """Decides about newcomers: ZeroMQ asks it in the middle of every handshake at a Front (ZAP, RFC 27).

    `judge` is given the client's public key in Z85, "" at a door without keys, and says what to do and who that is.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], judge: Callable[[str], tuple[Admission, str]]) -> None:
        self._judge = judge
        self.socket = _open(context, zmq.REP)
        self.socket.bind("inproc://zeromq.zap.01")

    def answer(self) -> None:
        """Answer everybody who is waiting at a door."""
        for _ in range(_DRAIN):
            try:
                _, number, _, _, _, mechanism, *credentials = self.socket.recv_multipart(_NOW)
            except zmq.Again:
                return
            key = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" else ""
            admission, name = self._judge(key)
            self.socket.send_multipart([b"1.0", number, admission.value, b"", name.encode(), b""])

    def close(self) -> None:
        """Close the socket. Doors must be closed before."""
        self.socket.close()


def new_key_pair() -> tuple[str, str]:
    """A public key and its secret, in Z85."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


class Front:
    """A public door: a ROUTER that any client may talk to. Frames come in as they are, unchecked.

    With `secret`, the server's secret key, everything is encrypted (CURVE) and each client shows a key. With keys or
    without, the Doorkeeper of the context is asked about each newcomer; that also makes ZeroMQ refuse the old form of
    its protocol, which has no handshake and takes any bytes for messages.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        max_message: int,
        secret: str | None = None,
        queue: int = 10_000,
    ) -> None:
        self.guarded = secret is not None
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.router_mandatory = True
        self.socket.maxmsgsize = max_message
        self.socket.sndhwm = queue  # answers a client may leave unread before they are dropped, and counted
        self.socket.rcvhwm = queue
        self.socket.ipv6 = "[" in address
        self.socket.backlog = _BACKLOG
        self.socket.handshake_ivl = _HANDSHAKE_MS
        self.socket.zap_domain = b"keys" if self.guarded else b"open"
        self.socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # with no Doorkeeper nobody comes in, instead of everybody
        if secret is not None:
            self.socket.curve_server = True
            self.socket.curve_secretkey = secret.encode()
        if address.startswith("tcp://"):
            self.socket.heartbeat_ivl = 15_000
            self.socket.heartbeat_timeout = 45_000
            self.socket.tcp_keepalive = 1
        self._connections: set[int] = set()  # descriptors
        self._duplicates = Duplicates()
        self._turned_away = 0  # handshakes that failed, and whose connection may not have ended yet
        self._max_message = max_message
        self._told: dict[int, bytes] = {}  # clients that want to be told of a stop, by descriptor
        self.comings = self._watch_connections(context)
        try:
            self.socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise OSError(error.errno, zmq.strerror(error.errno or 0)) from None
        self.address = bytes(self.socket.getsockopt(zmq.LAST_ENDPOINT)).decode().rstrip("\0")
        self.unread = 0
        self.cut = 0  # connections that were cut on account of what they sent

    def _watch_connections(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        address = f"inproc://comings-{id(self)}"
        self.socket.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | _HANDSHAKE_FAILED)
        comings = _open(context, zmq.PAIR)
        comings.connect(address)
        return comings

    def connections(self) -> int:
        """How many connections there are now, those in the middle of their handshake too."""
        with contextlib.suppress(zmq.Again):
            while True:
                event = parse_monitor_message(self.comings.recv_multipart(_NOW))
                if event["event"] == zmq.EVENT_ACCEPTED:
                    self._connections.add(event["value"])
                    self._duplicates.keep(event["value"])
                elif event["event"] & _HANDSHAKE_FAILED:
                    self._turned_away += 1
                else:
                    self._ended(event["value"])
        return len(self._connections)

    def _ended(self, descriptor: int) -> None:
        self._connections.discard(descriptor)
        self._told.pop(descriptor, None)
        end = self._duplicates.end_of(descriptor)
        if end is End.OURS and self._turned_away:  # in its handshake, for which there is another word
            self._turned_away -= 1
        elif end in (End.OURS, End.OURS_UNREAD):
            self.cut += 1
            log.warning(
                "the connection of a client was cut: it sent a frame of more than %d bytes (option max_payload_mb) or "
                "what is no message, or was not there any more",
                self._max_message,
            )

    @property
    def descriptors_taken(self) -> int:
        """How many descriptors its connections take."""
        return self.connections() + len(self._duplicates)

    def descriptors(self) -> list[int]:
        """Those of the connections there are now."""
        self.connections()
        return list(self._connections)

    def enlist(self, client: bytes, frame: zmq.Frame) -> None:
        """Tell the client that sent a frame when `tell` is called, if it is still there."""
        self.connections()  # first who has left: descriptors are used again
        self._told[int(frame.get(zmq.SRCFD))] = client

    def tell(self, header: bytes) -> None:
        """Send a message to everybody who is enlisted."""
        for client in self._told.values():
            self.send([client, header])

    def drain(self) -> Iterator[list[zmq.Frame]]:
        """Messages that are there: sender, then the client's frames."""
        for _ in range(_DRAIN):
            try:
                yield self.socket.recv_multipart(_NOW, copy=False)
            except zmq.Again:
                return

    def user(self, frame: zmq.Frame) -> str:
        """Who sent a frame, by the name the Doorkeeper gave; "" at a door without keys, where any name is a claim."""
        return str(frame.get("User-Id")) if self.guarded else ""

    def send(self, frames: list[Any]) -> None:
        """Send frames, the first being the client. A client that is gone or does not read loses them."""
        try:
            _send_frames(self.socket, frames)
        except zmq.ZMQError:
            self.unread += 1

    def close(self, until: float | None = None) -> None:
        """Close the door; what was sent has until `until` to leave."""
        self.socket.disable_monitor()
        self.comings.close()
        self.socket.close(linger=_linger(until))
        self._duplicates.close()


class Watch:
    """Sleeps until one of several sockets or descriptors has something."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()

    def add(self, source: Any) -> None:
        """Watch a socket, or anything with a file descriptor."""
        self._poller.register(source, zmq.POLLIN)

    def remove(self, source: Any) -> None:
        """Watch it no longer."""
        with contextlib.suppress(KeyError):
            self._poller.unregister(source)

    def wait(self, timeout: float | None) -> set[Any]:
        """What has something within `timeout` seconds (None: for ever)."""
        return {source for source, _ in self._poller.poll(_milliseconds(timeout))}


def _linger(until: float | None) -> int:
    """Milliseconds, never none: a reply that was just sent takes a moment to leave whatever the time is."""
    return _MOMENT_MS if until is None else max(_MOMENT_MS, int((until - time.monotonic()) * 1000))


def _milliseconds(timeout: float | None) -> int | None:
    """For a poller: rounded up, so that a timer is never looked at just before its time."""
    return None if timeout is None else max(0, int(timeout * 1000 + 0.999))


def _send_frames(socket: zmq.Socket[bytes], frames: Sequence[Any]) -> None:
    """All frames or none, without waiting. Raises ZMQError where the first cannot be sent."""
    last = len(frames) - 1
    for number, frame in enumerate(frames):
        socket.send(frame, _NOW_MORE if number < last else _NOW)
