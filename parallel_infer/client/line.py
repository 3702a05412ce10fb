"""The socket of one connection: frames out, frames in, and the news of its monitor."""

from __future__ import annotations

import contextlib

import zmq
from zmq.utils.monitor import recv_monitor_message

from parallel_infer.client.endpoint import Address, connect, open_socket

COPY_BELOW = 65536  # bytes of an answer from which on it stays where it was received
_SEND_COPY_BELOW = 524288  # bytes; sending without a copy wakes a thread of pyzmq, which takes as long as this copy
# A try to connect that came to nothing: nobody listens, or whoever does is going away. ZeroMQ tries again.
_IN_VAIN = zmq.EVENT_CLOSED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
SENT_AWAY = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL  # ZeroMQ does not try again
FAILED = _IN_VAIN | SENT_AWAY
_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | FAILED
# As plain numbers: zmq's flags are enums, and combining those takes longer than sending.
NOW, _MORE = int(zmq.DONTWAIT), int(zmq.DONTWAIT | zmq.SNDMORE)
_READABLE = int(zmq.POLLIN)


class Line:
    """A DEALER socket towards an address, or one of several at a time, and its monitor."""

    def __init__(self, address: Address) -> None:
        self._endpoints = address.endpoints
        self._at = 0  # which of them is in use
        self._in_vain = 0  # how many were tried since the last connection
        self.socket = open_socket(address)
        self.monitor = self.socket.get_monitor_socket(_EVENTS)
        self._patience = -1  # RCVTIMEO as it is set, in ms
        self._poller = zmq.Poller()
        try:
            connect(self.socket, address)
        except ValueError:
            self.close()
            raise

    def send(self, header: bytes, payload: bytes | memoryview | None) -> bool:
        """Send a message without waiting; False where the socket takes nothing now."""
        try:
            if payload is None:
                self.socket.send(header, NOW)
            else:
                self.socket.send(header, _MORE)
                self.socket.send(payload, NOW, copy=len(payload) < _SEND_COPY_BELOW)
        except zmq.Again:
            return False
        return True

    def receive(self, flags: int = 0) -> tuple[memoryview, bytes | memoryview]:
        """Header and payload of the next message. Raises zmq.Again where there is none (in time)."""
        header = self.socket.recv(flags, copy=False)
        payload: bytes | memoryview = b""
        if header.more:
            frame = self.socket.recv(flags, copy=False)
            payload = frame.buffer if len(frame) >= COPY_BELOW else frame.bytes
            while frame.more:
                frame = self.socket.recv(flags, copy=False)
        return header.buffer, payload

    @property
    def has_message(self) -> bool:
        """Whether `receive` has something at once; to be told so by its error takes three times as long."""
        return bool(zmq.zmq_poll([(self.socket, _READABLE)], 0))

    def limit_waiting(self, patience: float) -> None:
        """Let `receive` wait up to `patience` seconds."""
        milliseconds = round(patience * 1000)
        if milliseconds != self._patience:
            self.socket.setsockopt(zmq.RCVTIMEO, milliseconds)
            self._patience = milliseconds

    def sleep(self, patience: float, writable: bool) -> None:
        """Wait up to `patience` seconds for a message or for news, or until the socket is `writable`."""
        self._poller.register(self.monitor, zmq.POLLIN)
        self._poller.register(self.socket, zmq.POLLIN | (zmq.POLLOUT if writable else 0))
        self._poller.poll(round(patience * 1000))

    def news(self) -> tuple[int, int] | None:
        """The next event of the monitor that was not looked at yet, and its value."""
        while zmq.zmq_poll([(self.monitor, _READABLE)], 0):  # pyzmq takes longer to ask for an option
            message = recv_monitor_message(self.monitor)
            if self.has_others and message["endpoint"].decode() != self._endpoints[self._at]:
                continue  # of an address that was left
            if message["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._in_vain = 0
            return message["event"], message["value"]
        return None

    def connect_again(self) -> None:
        """After a refusal ZeroMQ does not do so by itself."""
        self._disconnect()
        self.socket.connect(self._endpoints[self._at])

    @property
    def has_others(self) -> bool:
        """Whether there are other addresses than the one that is in use."""
        return len(self._endpoints) > 1

    @property
    def is_last(self) -> bool:
        """Whether all other addresses were tried since the last connection."""
        return self._in_vain + 1 >= len(self._endpoints)

    def move_on(self) -> bool:
        """Connect to the next address; False where all were tried: that is done by `connect_again`, after a pause."""
        again = self.is_last
        self._in_vain = 0 if again else self._in_vain + 1
        self._disconnect()
        self._at = (self._at + 1) % len(self._endpoints)
        if not again:
            self.socket.connect(self._endpoints[self._at])
        return not again

    def _disconnect(self) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disconnect(self._endpoints[self._at])

    def close(self) -> None:
        """Close the socket; what was sent has a moment to leave."""
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close()
