"""A ZeroMQ door for clients with frames of their own: a REQ socket asks, each request gets one reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import zmq
import zmq.asyncio

from parallel_infer.config.addresses import socket_path
from parallel_infer.doors.access import Networks
from parallel_infer.doors.lifetime import Activity
from parallel_infer.errors import BadInput, ConfigError, InferError, Unauthorized
from parallel_infer.json_keys import twice


class Response(NamedTuple):
    """The frames of a reply, and the error that they tell of."""

    frames: list[bytes]
    error: InferError | None = None


Respond = Callable[[bytes, list[Any]], Awaitable[Response]]
"""From a connection's name and its frames to the reply."""

_LINGER = 1000  # ms in which the last replies leave
_HEARTBEAT, _HEARTBEAT_TIMEOUT = 5000, 20000  # ms; a client that vanished is forgotten
_MOST_HEADER = 65536  # bytes
_MOST = 1024  # requests at work at a time; REQ sockets have one each
_LET_IN, _TURNED_AWAY = b"200", b"400"  # of ZAP
_MOST_TOLD = 256  # addresses that the log names
log = logging.getLogger(__name__)


def json_of(data: bytes) -> Any:
    """The JSON of a request's first frame. Raises BadInput for what is none, or too long."""
    if len(data) > _MOST_HEADER:
        raise BadInput(f"the first frame has {len(data)} bytes; a header of up to {_MOST_HEADER} is read")
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadInput("the first frame is no JSON") from None
    if name := twice(data):
        raise BadInput(f"{name[:64]!r} is there twice in the first frame; give it once")
    return found


class ZmqDoor:
    """Answers REQ sockets, each in its own pace, many at a time."""

    def __init__(
        self, address: str, limit: int, respond: Respond, activity: Activity, networks: Networks | None = None
    ) -> None:
        """`limit` is the most bytes of one frame; at a tcp address only clients of `networks` come in (None: all).

        Raises ConfigError where nobody can listen at `address`.
        """
        self._context = zmq.asyncio.Context()
        kept = networks is not None and address.startswith("tcp://")
        self._keeper = Keeper(self._context, networks, activity) if networks is not None and kept else None
        self._socket = self._context.socket(zmq.ROUTER)
        if kept:
            self._socket.setsockopt(zmq.ZAP_DOMAIN, b"keyless")
        options = {
            zmq.LINGER: _LINGER,
            zmq.MAXMSGSIZE: limit,
            zmq.ROUTER_HANDOVER: 0,
            zmq.HEARTBEAT_IVL: _HEARTBEAT,
            zmq.HEARTBEAT_TIMEOUT: _HEARTBEAT_TIMEOUT,
            zmq.IPV6: int("[" in address),
            zmq.RCVHWM: 8,  # per client; a REQ socket sends one
        }
        for option, value in options.items():
            self._socket.setsockopt(option, value)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._socket.close(0)
            if self._keeper is not None:
                self._keeper.close()
            raise ConfigError(f"cannot listen at {address}: {error.strerror}") from None
        self.address = _text(self._socket.getsockopt(zmq.LAST_ENDPOINT))
        if (path := socket_path(self.address)) is not None:
            path.chmod(0o600)  # for this user alone, whatever the umask is
        self._respond = respond
        self._activity = activity
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until `stop`, then give what is at work its reply."""
        ending = asyncio.ensure_future(stop.wait())
        keeping = None if self._keeper is None else asyncio.ensure_future(self._keeper.run())
        try:
            while not stop.is_set():
                receiving = asyncio.ensure_future(self._socket.recv_multipart(copy=False))
                await asyncio.wait({receiving, ending}, return_when=asyncio.FIRST_COMPLETED)
                if not receiving.done():
                    receiving.cancel()
                    break
                task = asyncio.ensure_future(self._answer(receiving.result()))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                if len(self._tasks) >= _MOST:
                    await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            ending.cancel()
            if keeping is not None:
                keeping.cancel()

    def close(self) -> None:
        """Close the socket; the last replies have a moment to leave."""
        if self._keeper is not None:
            self._keeper.close()
        self._socket.close()
        self._context.term()

    async def _answer(self, frames: list[Any]) -> None:
        client = frames[0].bytes
        if len(frames) < 3 or len(frames[1]):
            return  # not of a REQ socket: there is no way to reply
        size = sum(len(frame) for frame in frames[2:])
        status, reply = "lost", Response([])
        failed: Exception | None = None
        self._activity.begin()
        try:
            reply = await self._respond(client, frames[2:])
            status, failed = "ok" if reply.error is None else "error", reply.error
        except Exception as error:
            failed = error
            log.exception("a request failed")
            return
        finally:
            self._activity.end(status, failed, size, sum(map(len, reply.frames)))
        await self._socket.send_multipart([client, b"", *reply.frames], copy=False)


class Keeper:
    """Lets clients of these addresses in: ZeroMQ asks it in the middle of every handshake (ZAP, RFC 27)."""

    def __init__(self, context: zmq.asyncio.Context, networks: Networks, activity: Activity) -> None:
        """Made before the sockets of `context` that it keeps, whose `zap_domain` says that they have a keeper."""
        self._socket = context.socket(zmq.REP)
        self._socket.bind("inproc://zeromq.zap.01")
        self._networks = networks
        self._activity = activity
        self._told: set[str] = set()

    async def run(self) -> None:
        """Answer until the task is cancelled."""
        while True:
            version, request, _, place, *_ = await self._socket.recv_multipart()
            address = place.decode(errors="replace")
            status = _LET_IN if self._networks.hold(address) else _TURNED_AWAY
            if status == _TURNED_AWAY:
                self._turn_away(address)
            await self._socket.send_multipart([version, request, status, b"", b"", b""])

    def _turn_away(self, address: str) -> None:
        why = f"{address} is not among the addresses that come in without a key (option keyless_from)"
        self._activity.turn_away("refused", Unauthorized(why))
        if address not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(address)
            log.warning("a client was turned away: %s", why)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(0)


def _text(value: bytes | int | str) -> str:
    return value.decode().rstrip("\0") if isinstance(value, bytes) else str(value)
