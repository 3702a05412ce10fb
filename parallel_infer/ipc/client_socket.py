"""Public doors: the sockets that clients talk to, who is let in, and how replies are encoded for them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import partial
from typing import Any

import msgspec
import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from parallel_infer import protocol
from parallel_infer.ipc.channel import DRAIN, Context, has_message, linger, open_socket, receive_frames
from parallel_infer.machine.descriptors import Duplicates, End, untaken

log = logging.getLogger(__name__)
_HANDSHAKE_MS = 5000  # a connection whose handshake takes longer is closed
_HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_BACKLOG = 1024  # connections that the kernel keeps until they are accepted
_encode = msgspec.msgpack.Encoder().encode
# Plain numbers: combining zmq's flag enums costs more than the call they are for.
_NOW = int(zmq.NOBLOCK)
_NOW_MORE = _NOW | int(zmq.SNDMORE)


class ZapStatus(Enum):
    """Whether a new connection is let in: the status codes of ZAP (RFC 27)."""

    WELCOME = b"200"
    REFUSED = b"400"
    FULL = b"500"  # the client is told, and decides when to try again; who is just cut off learns nothing


Verdict = Callable[[ZapStatus, str], None]  # what to do with a connection, and the name of its client


class ZapAuthenticator:
    """Decides about new connections: ZeroMQ asks it in the middle of every handshake at a ClientSocket (ZAP, RFC 27).

    `authenticate` gets the client's public key in Z85, "" at a door without keys, and whom to tell what to do and the
    client's name, now or later: other handshakes go on meanwhile.
    """

    def __init__(self, context: Context, authenticate: Callable[[str, Verdict], None]) -> None:
        self._authenticate = authenticate
        self.socket = open_socket(context, zmq.ROUTER)
        self.socket.bind("inproc://zeromq.zap.01")

    def answer(self) -> None:
        """Answer all that ZeroMQ asks now."""
        for _ in range(DRAIN):
            try:
                asker, _, _, number, _, _, _, mechanism, *credentials = self.socket.recv_multipart(_NOW)
            except zmq.Again:
                return
            key = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" else ""
            self._authenticate(key, partial(self._reply, asker, number))

    def _reply(self, asker: bytes, number: bytes, status: ZapStatus, name: str) -> None:
        """Tell ZeroMQ; a connection that has gone meanwhile takes no answer."""
        with contextlib.suppress(zmq.ZMQError):
            self.socket.send_multipart([asker, b"", b"1.0", number, status.value, b"", name.encode(), b""], _NOW)

    def close(self) -> None:
        """Close the socket. Doors must be closed before."""
        self.socket.close()


def new_key_pair() -> tuple[str, str]:
    """A public key and its secret, in Z85."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


class ClientSocket:
    """A public door: a ROUTER that any client may talk to. Frames come in as they are, unchecked.

    With `secret`, the server's secret key, everything is encrypted (CURVE) and each client shows a key. With keys or
    without, the ZapAuthenticator of the context is asked about each new connection; that also makes ZeroMQ refuse the
    old form of its protocol, which has no handshake and takes any bytes for messages.
    """

    def __init__(
        self,
        context: Context,
        address: str,
        max_message: int,
        secret: str | None = None,
        queue: int = 10_000,
    ) -> None:
        self.guarded = secret is not None
        self.inside = False  # the server's own: for its doors and its metrics page
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
        # Without a ZapAuthenticator nobody comes in, instead of everybody.
        self.socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
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
        self.monitor = self._watch_connections(context)
        try:
            self.socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise OSError(error.errno, zmq.strerror(error.errno or 0)) from None
        self.address = bytes(self.socket.getsockopt(zmq.LAST_ENDPOINT)).decode().rstrip("\0")
        self.unread = 0
        self.cut = 0  # connections that were cut on account of what they sent

    def _watch_connections(self, context: Context) -> zmq.Socket[bytes]:
        address = f"inproc://monitor-{id(self)}"
        self.socket.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | _HANDSHAKE_FAILED)
        monitor = open_socket(context, zmq.PAIR)
        monitor.connect(address)
        return monitor

    def connections(self) -> int:
        """How many connections there are now, those in the middle of their handshake too."""
        with contextlib.suppress(zmq.Again):
            while True:
                event = parse_monitor_message(self.monitor.recv_multipart(_NOW))
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

    @property
    def has_strangers(self) -> bool:
        """Whether there are connections whose clients `tell` does not reach."""
        return self.connections() > len(self._told)

    @property
    def is_read(self) -> bool:
        """Whether every client has taken what was sent to it, as far as the kernel knows."""
        self.connections()
        return not any(map(untaken, self._connections))

    def tell(self, code: str, text: str, reason: str) -> None:
        """Send an error of id 0 to everybody who is enlisted."""
        for client in self._told.values():
            ReplyAddress(self, client).error(code, text, reason)

    def drain(self) -> Iterator[list[zmq.Frame]]:
        """Messages that are there: sender, then the client's frames."""
        for _ in range(DRAIN):
            try:
                frames = receive_frames(self.socket)
            except zmq.Again:
                return
            yield frames
            if not has_message(self.socket):
                return

    def user(self, frame: zmq.Frame) -> str:
        """Who sent a frame, by the name the ZapAuthenticator gave; "" without keys, where any name is a claim."""
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
        self.monitor.close()
        self.socket.close(linger=linger(until))
        self._duplicates.close()


class ReplyAddress:
    """The client that sent a request, and where the one reply to it goes."""

    __slots__ = ("client", "door", "enveloped", "request")

    def __init__(self, door: ClientSocket, client: bytes, enveloped: int = 0) -> None:
        self.door = door
        self.client = client
        self.enveloped = enveloped  # empty frames between address and header, as REQ sockets send
        self.request = 0  # its id, once that is read

    @property
    def is_local(self) -> bool:
        """Whether the client is on this machine, and can attach a segment."""
        return self.door.address.startswith("ipc://")

    @property
    def is_door(self) -> bool:
        """Whether it is one of the server's own doors, which speaks for clients of its own."""
        return self.door.inside

    def key(self, request: int) -> tuple[object, ...]:
        """Tells this client's request of that id apart: two doors may see clients of one name."""
        return self.door, self.client, request

    def answer(self, body: bytes, payload: Any, timing: dict[str, float], batch: int) -> int:
        """Reply with a job's answer: an encoded AnswerBody or result map, and its arrays. Returns the bytes sent."""
        answer = protocol.Answer(id=self.request, answer=msgspec.Raw(body), timing=timing, batch=batch)
        return self._send(_encode(answer), payload)

    def error(self, code: str, text: str, reason: str = "", retry_after: float = 0.0) -> None:
        """Reply with an error, as protocol.Error has it."""
        error = protocol.Error(
            id=self.request, code=code, message=text, reason=reason, retry_after=round(retry_after, 4)
        )
        self._send(_encode(error))

    def result(self, result: object) -> None:
        """Reply to a query with anything that MessagePack can hold."""
        self._send(_encode(protocol.Result(id=self.request, result=msgspec.Raw(_encode(result)))))

    def _send(self, header: bytes, payload: Any = b"") -> int:
        frames = [self.client, b"", header] if self.enveloped else [self.client, header]
        if size := len(payload):
            frames.append(payload)
        self.door.send(frames)
        return len(header) + size


def _send_frames(socket: zmq.Socket[bytes], frames: Sequence[Any]) -> None:
    """All frames or none, without waiting. Raises ZMQError where the first cannot be sent."""
    last = len(frames) - 1
    for number, frame in enumerate(frames):
        socket.send(frame, _NOW_MORE if number < last else _NOW, copy=not isinstance(frame, zmq.Frame))
