"""Channels: ZeroMQ sockets that carry lists of typed messages. The only server file that imports zmq.

`send` only queues; `flush` sends everything that waits for one peer as one frame, so that answers which are ready
together travel together. `receive` drains a socket before anybody sleeps on it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec
import zmq

Received = TypeVar("Received")
_encode = msgspec.msgpack.Encoder().encode
_DRAIN = 256  # frames taken in one go, so that no socket starves the rest of a loop
_RECONNECT_MS = 10


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

    def receive(self, timeout: float | None) -> Iterator[tuple[bytes, Received]]:
        """Messages with their senders; waits up to `timeout` seconds (None: for ever) for the first."""
        receive = self._socket.recv_multipart
        if not self._socket.poll(-1 if timeout is None else max(0, int(timeout * 1000 + 0.999))):
            return
        for _ in range(_DRAIN):
            try:
                peer, frame = receive(zmq.NOBLOCK)
            except zmq.Again:
                return
            for message in self._decode(frame):
                yield peer, message

    def send(self, peer: bytes, message: object) -> None:
        """Queue a message for a peer."""
        waiting = self._waiting.get(peer)
        if waiting is None:
            self._waiting[peer] = [message]
        else:
            waiting.append(message)

    def flush(self) -> None:
        """Send what waits. Peers that are gone get nothing: who watches over them says so."""
        send = self._socket.send_multipart
        for peer, messages in self._waiting.items():
            with contextlib.suppress(zmq.ZMQError):
                send((peer, _encode(messages)), zmq.NOBLOCK)
        self._waiting.clear()

    def close(self) -> None:
        """Close the socket; what was not sent is lost."""
        self._socket.close()


class Link(Generic[Received]):
    """The connected end of a link to a Router, under an identity of one's own."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], address: str, identity: str, received: Any
    ) -> None:
        self.socket = _open(context, zmq.DEALER)
        self.socket.identity = identity.encode()
        self.socket.reconnect_ivl = _RECONNECT_MS
        self.socket.connect(address)
        self._decode = msgspec.msgpack.Decoder(list[received]).decode
        self._waiting: list[object] = []

    def receive(self) -> list[Received]:
        """At least one frame's messages; sleeps until there are any."""
        return self._decode(self.socket.recv())  # type: ignore[no-any-return]

    def drain(self) -> list[Received]:
        """What is there already, without waiting."""
        messages: list[Received] = []
        for _ in range(_DRAIN):
            try:
                messages += self._decode(self.socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                break
        return messages

    def waiting(self) -> bool:
        """Whether there is something to receive."""
        return bool(self.socket.events & zmq.POLLIN)  # type: ignore[operator]

    def send(self, message: object) -> None:
        """Queue a message."""
        self._waiting.append(message)

    def flush(self) -> None:
        """Send what waits as one frame."""
        if self._waiting:
            self.socket.send(_encode(self._waiting))
            self._waiting.clear()

    def close(self) -> None:
        """Close the socket, giving what was sent a moment to leave."""
        self.socket.close(linger=500)


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
            self._socket.send_multipart([_encode(self._messages), *self._payloads])
            self._messages.clear()
            self._payloads.clear()

    def close(self) -> None:
        """Close the socket, giving what was sent a moment to leave."""
        self._socket.close(linger=500)


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
                frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            for message in self._decode(frames[0].buffer):
                yield message, frames[1:]

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
