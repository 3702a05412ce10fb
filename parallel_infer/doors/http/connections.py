"""Connections of the HTTP door: how many, how long each may be silent, and errors in our own form.

aiohttp ends a connection that sends no whole request head in time (`keepalive_timeout`). Here is what it leaves open:
answers that nobody reads, more connections than there may be, and what is no HTTP at all.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError, LineTooLong

from parallel_infer.doors.http.errors import HttpError, body_of, headers_of
from parallel_infer.doors.lifetime import Activity
from parallel_infer.errors import BadInput, InferError, ResourceUnavailable

log = logging.getLogger(__name__)
_AT_ONCE = struct.pack("ii", 1, 0)  # struct linger of socket(7): on, for 0 seconds


class Limits:
    """What connections may take; times in seconds."""

    def __init__(self, idle: float, silence: float, connections: int, activity: Activity) -> None:
        self.idle = idle  # without a whole request head
        self.silence = silence  # without a byte of an answer being taken
        self.connections = connections
        self.activity = activity


class Connection(web.RequestHandler):
    """One connection of a client."""

    def __init__(self, server: web.Server, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.idle,
            lingering_time=limits.silence,  # for clients that read nothing before they have sent all
            access_log=None,  # type: ignore[arg-type]
            auto_decompress=False,  # bodies.py unpacks, and notices where an end is missing
        )
        self._server = server
        self._limits = limits
        self._unread: asyncio.TimerHandle | None = None  # looks whether anything of an answer was taken
        self._left = 0  # bytes of it that were there at the last look

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Turn a client away where there are too many already."""
        super().connection_made(transport)
        if len(self._server.connections) > self._limits.connections and isinstance(transport, asyncio.Transport):
            error = ResourceUnavailable("the server has as many connections as it may (option max_clients)")
            self._limits.activity.turn_away("503", error)
            transport.write(_last_words(503, body_of(error)))
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        self._stop_looking()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client takes an answer more slowly than it is written: from now on something has to be taken."""
        super().pause_writing()
        self._look_again()

    def resume_writing(self) -> None:
        """It has taken nearly all."""
        self._stop_looking()
        super().resume_writing()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP request, or to one whose handler failed."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        if status >= 500:
            log.error("a request failed", exc_info=exc)
        if isinstance(exc, ContentEncodingError):
            status = 415
        return self._refusal(status, _error_of(status, exc))

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Send an answer; an error of aiohttp's own, from before all middlewares, in our form."""
        if isinstance(resp, web.HTTPException):
            asked = request.headers.get("Expect", "")[:40]
            why = f"Expect is {asked!r}; 100-continue is known" if resp.status == 417 else resp.reason
            resp = self._refusal(resp.status, HttpError(resp.status, why))
        return super().finish_response(request, resp, start_time)

    def _refusal(self, status: int, error: InferError) -> web.Response:
        self._limits.activity.turn_away(str(status), error)
        response = web.Response(body=body_of(error), status=status, content_type="application/json")
        response.headers.update(headers_of(status))
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """What aiohttp could not handle; a body that cannot be unpacked is no news, though nobody read it."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            log.error(*args, **kw)

    def _look_again(self) -> None:
        if self.transport is not None:
            self._left = self.transport.get_write_buffer_size()
            self._unread = asyncio.get_running_loop().call_later(self._limits.silence, self._look)

    def _look(self) -> None:
        if self.transport is None:
            return
        if self.transport.get_write_buffer_size() < self._left:
            self._look_again()
            return
        log.info("a client took nothing of its answer for %g s (option http_silence_ms)", self._limits.silence)
        # The kernel shall not keep for it what it has not taken.
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()

    def _stop_looking(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def connection_factory(server: web.Server, limits: Limits) -> Callable[[], Connection]:
    """What asyncio calls for each new connection."""
    loop = asyncio.get_running_loop()
    return lambda: Connection(server, limits, loop)


def _error_of(status: int, exc: BaseException | None) -> InferError:
    if isinstance(exc, LineTooLong):
        return HttpError(status, "the request's first line or one of its headers is longer than 8190 bytes")
    if isinstance(exc, ContentEncodingError):
        return HttpError(status, "this Content-Encoding is not read here; gzip and deflate are")
    if isinstance(exc, HttpProcessingError):
        reason = " ".join(str(exc.message).split())[:200]
        return HttpError(status, f"this is no HTTP request that can be read: {reason}", BadInput.code)
    return InferError("the server failed at this request; its log has more")


def _last_words(status: int, body: bytes) -> bytes:
    """A whole response for a connection that never gets as far as a request."""
    head = [f"HTTP/1.1 {status} Service Unavailable", "Content-Type: application/json", "Connection: close"]
    more: dict[str, Any] = {**headers_of(status), "Content-Length": len(body)}
    return "\r\n".join([*head, *(f"{name}: {value}" for name, value in more.items()), "", ""]).encode() + body
