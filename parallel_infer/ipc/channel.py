"""Channels: ZeroMQ sockets that carry lists of typed messages.

Of the server's files only this one, `client_socket` and `member_socket` import zmq.

`send` only queues; `flush` sends everything that waits for one peer as one frame, so that answers which are ready
together travel together. `receive` drains a socket before anybody sleeps on it again.
"""

from __future__ import annotations

import contextlib
import logging
import select
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec
import zmq

Received = TypeVar("Received")
Context = zmq.Context[zmq.Socket[bytes]]
log = logging.getLogger(__name__)


class Hello(msgspec.Struct, frozen=True):
    """A peer has connected for the first time.

    One that connects again, to a new Router of the same address, is silent: who is expected has to be greeted.
    """


_encode = msgspec.msgpack.Encoder().encode
DRAIN = 256  # frames taken in one go, so that no socket starves the rest of a loop
_RECONNECT_MS = 10
_MOMENT_MS = 500  # that what was sent has to leave, at least
# Plain numbers: combining zmq's flag enums costs more than the call they are for.
_NOW = int(zmq.NOBLOCK)
_MORE = int(zmq.SNDMORE)
_READABLE = int(zmq.POLLIN)
_NOW_MORE = _NOW | _MORE
_RECEIVE_TIMEOUT = int(zmq.RCVTIMEO)
_LONGEST = (1 << 31) - 1  # milliseconds that ZeroMQ can count


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A context with one I/O thread; its owner closes it."""
    return zmq.Context(io_threads=1)


def open_socket(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.linger = 0
    # Credit bounds what is under way; a high-water mark here would only drop what is owed.
    socket.sndhwm = 0
    socket.rcvhwm = 0
    return socket


def receive_frames(socket: zmq.Socket[bytes]) -> list[zmq.Frame]:
    """The frames of the next message, without a copy. Raises zmq.Again where none is there.

    Each frame knows whether another follows; recv_multipart asks the socket, which takes longer than receiving.
    """
    frame = socket.recv(_NOW, copy=False)
    frames = [frame]
    while frame.more:
        frame = socket.recv(copy=False)
        frames.append(frame)
    return frames


def has_message(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message lies there. To be told so by an error takes three times as long, by its option half more."""
    return bool(zmq.zmq_poll([(socket, _READABLE)], 0))


class Router(Generic[Received]):
    """The bound end of many links; peers are known by the identity they connect with."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, received: Any) -> None:
        self._socket = open_socket(context, zmq.ROUTER)
        self._socket.router_mandatory = True  # a peer that is gone is an error, not a silent loss
        self._socket.bind(address)
        self._decode = msgspec.msgpack.Decoder(list[received]).decode
        self._waiting: dict[bytes, list[Any]] = {}
        self._patience = -1  # milliseconds that it waits for a message now

    def receive(self, timeout: float | None) -> Iterator[tuple[bytes, Received | Hello]]:
        """Messages with their senders; waits up to `timeout` seconds (None: for ever) for the first."""
        receive = self._socket.recv
        # To sleep in recv itself takes a third of the system calls of a poller before it.
        patience = -1 if timeout is None else _milliseconds(timeout)
        if patience != self._patience:
            self._patience = patience
            self._socket.setsockopt(_RECEIVE_TIMEOUT, patience)
        try:
            peer = receive()
        except zmq.Again:
            return
        for further in reversed(range(DRAIN)):
            frame = receive()
            if not frame:
                yield peer, Hello()
            else:
                for message in self._decode(frame):
                    yield peer, message
            if not further or not has_message(self._socket):
                return
            peer = receive()

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
        return has_message(self._socket)

    def close(self, until: float | None = None) -> None:
        """Close the socket; what was sent has until `until` to leave."""
        self._socket.close(linger=linger(until))


class Link(Generic[Received]):
    """The connected end of a link to a Router, under an identity of one's own."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, identity: str, received: Any) -> None:
        self.socket = open_socket(context, zmq.DEALER)
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
        with contextlib.suppress(zmq.Again):
            for _ in range(DRAIN):
                messages += self._decode(self.socket.recv(_NOW))
                if not has_message(self.socket):
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
        self.socket.close(linger=linger(until))


class PeerLinks:
    """From one worker to others, by their addresses. Messages leave at once.

    A connection that ends is not made again: an address belongs to one process. What could not be delivered is lost;
    who watches over the processes says so.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], most: int = 64) -> None:
        self._context = context
        self._sockets: OrderedDict[str, zmq.Socket[bytes]] = OrderedDict()  # the newest at the end
        self._most = most

    def send(self, address: str, message: object) -> None:
        """Send a message."""
        socket = self._sockets.get(address)
        if socket is None:
            socket = self._sockets[address] = self._connect(address)
        with contextlib.suppress(zmq.Again):  # it is gone
            socket.send(_encode([message]), _NOW)

    def _connect(self, address: str) -> zmq.Socket[bytes]:
        if len(self._sockets) >= self._most:
            self._sockets.popitem(last=False)[1].close(linger=_MOMENT_MS)
        socket = open_socket(self._context, zmq.PUSH)
        socket.reconnect_ivl = -1
        socket.connect(address)
        return socket

    def close(self) -> None:
        """Close the sockets; what was sent has a moment to leave. Longer would only wait for peers that are dead."""
        for socket in self._sockets.values():
            socket.close(linger=_MOMENT_MS)


class AnswerLink:
    """From a postprocess worker to the gateway: messages, and payloads as frames of their own."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self._socket = open_socket(context, zmq.PUSH)
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
            if self._payloads:
                self._socket.send_multipart([_encode(self._messages), *self._payloads], copy=False)
            else:
                self._socket.send(_encode(self._messages))
            self._messages.clear()
            self._payloads.clear()

    def close(self, until: float | None = None) -> None:
        """Close the socket; what was sent has until `until` to leave."""
        self._socket.close(linger=linger(until))


class AnswerInlet(Generic[Received]):
    """The gateway's end of all AnswerLinks."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, received: Any) -> None:
        self.socket = open_socket(context, zmq.PULL)
        self.socket.bind(address)
        self._decode = msgspec.msgpack.Decoder(list[received]).decode

    def drain(self) -> Iterator[tuple[Received, list[zmq.Frame]]]:
        """Messages that are there, each with the payload frames of its batch."""
        for _ in range(DRAIN):
            try:
                frames = receive_frames(self.socket)
            except zmq.Again:
                return
            for message in self._decode(frames[0].buffer):
                yield message, frames[1:]
            if not has_message(self.socket):
                return

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class Watch:
    """Sleeps until one of several sockets or descriptors has something.

    ZeroMQ asks each socket before it sleeps and after, with two system calls each time. Those that rarely have anything
    are watched together, by one descriptor, until that tells of something.
    """

    def __init__(self) -> None:
        self._usual: dict[Any, int] = {}
        self._rare: dict[Any, int] = {}
        self._epoll = select.epoll()
        self._polled: list[tuple[Any, int]] = []  # what ZeroMQ is asked for
        self._look_closely = False  # the rare ones may have something that their descriptors do not tell any more

    def add(self, source: Any, *, rare: bool = False) -> None:
        """Watch a socket, or a descriptor. Whoever uses a `rare` socket unasked has to read until it is empty.

        A socket's descriptor tells of a message once; using the socket takes that.
        """
        if rare:
            self._rare[source] = _READABLE
            descriptor = source.fileno() if isinstance(source, zmq.Socket) else source
            self._epoll.register(descriptor, _READABLE)
            self._look_closely = True
        else:
            self._usual[source] = _READABLE
        self._choose()

    def remove(self, source: Any) -> None:
        """Watch one that is not rare no longer."""
        self._usual.pop(source, None)
        self._choose()

    def wait(self, timeout: float | None) -> set[Any]:
        """What has something within `timeout` seconds (None: for ever); may be nothing before that."""
        there = {source for source, _ in zmq.zmq_poll(self._polled, -1 if timeout is None else _milliseconds(timeout))}
        if self._look_closely:
            self._look_closely = not there.isdisjoint(self._rare)
            self._choose()
        elif self._epoll.fileno() in there:  # ZeroMQ tells numbers
            self._look_closely = True
            self._choose()
            return self.wait(0)
        return there

    def _choose(self) -> None:
        rare = self._rare if self._look_closely else {self._epoll.fileno(): _READABLE} if self._rare else {}
        self._polled = [*self._usual.items(), *rare.items()]


def linger(until: float | None) -> int:
    """Milliseconds, never none: a reply that was just sent takes a moment to leave whatever the time is."""
    return _MOMENT_MS if until is None else max(_MOMENT_MS, int((until - time.monotonic()) * 1000))


def _milliseconds(timeout: float) -> int:
    """Rounded up, so that a timer is never looked at just before its time."""
    return min(max(0, int(timeout * 1000 + 0.999)), _LONGEST)
