"""Request bodies, bounded each by itself and all together, and given up where nothing more of them comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from aiohttp import ClientError, web

from parallel_infer.doors.http.errors import HttpError
from parallel_infer.errors import BadInput, ResourceUnavailable

_ENCODINGS = ("", "identity", "gzip", "deflate")
# Bytes that JSON takes as Python's objects, by what it is made of: the text itself as a string and as what base64
# stands for, a list with its place in another, a number with its place in a list, a map with one entry.
_COPIES, _LIST, _NUMBER, _MAP = 3, 80, 32, 256
_FREE = 1 << 16  # bytes of JSON that are not weighed


class Bodies:
    """Memory for bodies, shared by every request of the door."""

    def __init__(self, limit: int, total: int, silence: float) -> None:
        self._limit = limit  # bytes of one body, as sent and as unpacked
        self._total = self._room = total  # bytes of all bodies at a time
        self._silence = silence  # seconds without a byte of a body after which its request is given up

    @contextlib.asynccontextmanager
    async def read(self, request: web.Request) -> AsyncIterator[memoryview]:
        """The body of a request, unpacked. Its memory counts until the context ends.

        Raises HttpError (413) where it is too large, before it is read if its length says so; (415) for an encoding
        that is not read here; (408) where it stops coming; ResourceUnavailable while other bodies take the memory.
        """
        self.check(request)
        length = request.content_length if not _is_packed(request) else None
        taken = 0
        try:
            parts: bytes | bytearray = b""
            while part := await self._next_part(request):
                taken += self._take(len(part))
                if len(parts) + len(part) > self._limit:
                    raise self._too_large()
                if not parts:
                    parts = part  # the usual small request, without a copy
                else:
                    parts = bytearray(parts) if isinstance(parts, bytes) else parts
                    parts += part
            if length is not None and len(parts) != length:
                raise BadInput(f"the body ended after {len(parts)} bytes; Content-Length says {length}")
            yield memoryview(parts)
        finally:
            self._room += taken

    @contextlib.contextmanager
    def parsing(self, json: memoryview) -> Iterator[None]:
        """Memory for JSON, the front of a body, while it is parsed and worked on.

        Raises HttpError (413) where it would take more than all memory there is, ResourceUnavailable while others do.
        """
        size = _weight(json) if len(json) > _FREE else 0
        if size > self._total:
            raise HttpError(
                413, f"this JSON takes {size >> 20} MB unpacked (option http_memory_mb); send tensors as binary data"
            )
        taken = self._take(size)
        try:
            yield
        finally:
            self._room += taken

    def check(self, request: web.Request) -> None:
        """Refuse a body by what its headers say of it. Raises HttpError, ResourceUnavailable."""
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            raise HttpError(415, f"Content-Encoding {encoding[:40]!r} is not read here; gzip and deflate are")
        length = request.content_length or 0
        if length > self._limit:
            raise self._too_large()
        if length > self._room:  # what is promised takes no memory yet, so that promises alone keep nobody out
            raise _no_room()

    def _take(self, size: int) -> int:
        if size > self._room:
            raise _no_room()
        self._room -= size
        return size

    def _too_large(self) -> HttpError:
        return HttpError(413, f"the body has more than the {self._limit} bytes that are read (option max_payload_mb)")

    async def _next_part(self, request: web.Request) -> bytes:
        """What has come of a body; empty at its end."""
        content = request.content
        try:
            if content.is_eof():  # nothing to wait for, and so no timer
                return await content.readany()
            async with asyncio.timeout(self._silence):
                return await content.readany()
        except TimeoutError:
            content.feed_eof()  # it is not waited for once more when the error is sent
            text = f"no byte of the body came for {self._silence:g} s (option http_silence_ms)"
            raise HttpError(408, text) from None
        except (web.RequestPayloadError, ClientError) as error:
            raise BadInput(f"the body cannot be read: {error}") from None


def _is_packed(request: web.Request) -> bool:
    return request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")


def _no_room() -> ResourceUnavailable:
    return ResourceUnavailable(
        "the bodies of other requests take all memory for them (option http_memory_mb); try again later"
    )


def _weight(json: memoryview) -> int:
    """About how many bytes JSON takes as Python's objects."""
    text, end = json.obj, len(json)
    assert isinstance(text, bytes | bytearray)
    lists, maps, commas = (text.count(mark, 0, end) for mark in (b"[", b"{", b","))
    return _COPIES * end + _LIST * lists + _MAP * maps + _NUMBER * commas
