"""Request bodies, bounded each by itself and all together, and given up where nothing more of them comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import ClientError, web

from parallel_infer.doors.http.errors import HttpError
from parallel_infer.errors import BadInput, ResourceUnavailable

SILENCE = 10.0  # seconds without a byte of a body after which its request is given up
_ENCODINGS = ("", "identity", "gzip", "deflate")


class Bodies:
    """Memory for bodies, shared by every request of the door."""

    def __init__(self, limit: int, total: int) -> None:
        self.limit = limit  # bytes of one body, as sent and as unpacked
        self._room = total  # bytes of all bodies at a time

    @contextlib.asynccontextmanager
    async def read(self, request: web.Request) -> AsyncIterator[memoryview]:
        """The body of a request, unpacked. Its memory counts until the context ends.

        Raises HttpError (413) where it is too large, before it is read if its length says so; (415) for an encoding
        that is not read here; (408) where it stops coming; ResourceUnavailable while other bodies take the memory.
        """
        self.check(request)
        length = request.content_length
        taken = 0
        try:
            if length is not None and not _packed(request):
                taken = self._take(length)
                data = memoryview(await self._whole(request, length))
            else:
                parts = bytearray()
                async for part in _parts(request):
                    if len(parts) + len(part) > self.limit:
                        raise self._too_large()
                    taken += self._take(len(part))
                    parts += part
                data = memoryview(parts)
            yield data
        finally:
            self._room += taken

    def check(self, request: web.Request) -> None:
        """Refuse a body by what its headers say of it. Raises HttpError."""
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            raise HttpError(415, f"Content-Encoding {encoding[:40]!r} is not read here; gzip and deflate are")
        if request.content_length is not None and request.content_length > self.limit:
            raise self._too_large()

    async def _whole(self, request: web.Request, length: int) -> bytes | bytearray:
        first = await _next_part(request)
        if len(first) >= length:
            return first  # the usual small request, without a copy
        parts = bytearray(first)
        while len(parts) < length:
            part = await _next_part(request)
            if not part:
                raise BadInput(f"the body ended after {len(parts)} bytes; Content-Length says {length}")
            parts += part
        return parts

    def _take(self, size: int) -> int:
        if size > self._room:
            raise ResourceUnavailable(
                "the bodies of other requests take all memory for them (option http_memory_mb); try again later"
            )
        self._room -= size
        return size

    def _too_large(self) -> HttpError:
        return HttpError(413, f"the body has more than the {self.limit} bytes that are read (option max_payload_mb)")


def _packed(request: web.Request) -> bool:
    return request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")


async def _parts(request: web.Request) -> AsyncIterator[bytes]:
    while part := await _next_part(request):
        yield part


async def _next_part(request: web.Request) -> bytes:
    """What has come of a body; empty at its end."""
    try:
        async with asyncio.timeout(SILENCE):
            return await request.content.readany()
    except TimeoutError:
        raise HttpError(408, f"no byte of the body came for {SILENCE:g} s") from None
    except web.RequestPayloadError as error:
        raise BadInput(f"the body cannot be read: {error}") from None
    except ClientError as error:
        raise BadInput(f"the body cannot be read: {error}") from None
