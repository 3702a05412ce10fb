"""Request bodies, bounded each by itself and all together, and given up where nothing more of them comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from aiohttp import ClientError, web

from parallel_infer.doors.http.errors import HttpError
from parallel_infer.doors.http.unpacking import ENCODINGS, Unpacking
from parallel_infer.doors.memory import Memory
from parallel_infer.errors import BadInput

# Bytes that JSON takes as Python's objects, by what it is made of: the text itself as a string and as what base64
# stands for, a list with its place in another, a number with its place in a list, a map with one entry.
_COPIES, _LIST, _NUMBER, _MAP = 3, 80, 32, 256
_FREE = 1 << 16  # bytes of JSON that are not weighed
_SMALL = 1 << 14  # bytes; smaller pieces of a body are put together, since each takes memory of its own
_NOTHING = contextlib.nullcontext()


class Bodies:
    """Memory for bodies, shared by every request of the door."""

    def __init__(self, limit: int, total: int, silence: float) -> None:
        self.limit = limit  # bytes of one body, as sent and as unpacked
        self.silence = silence  # seconds without a byte of a body after which its request is given up
        self.memory = Memory(total, "bodies", "http_memory_mb")  # of all bodies at a time

    def read(self, request: web.Request) -> _InOnePiece:
        """The body of a request, unpacked, as a memoryview: `async with bodies.read(request) as body`.

        Its memory counts until that ends. Entering it raises HttpError (413) where the body is too large, before it is
        read if its length says so; (415) for an encoding that is not read here; (408) where it stops coming; BadInput
        where it is cut off; ResourceUnavailable while other bodies take the memory.
        """
        return _InOnePiece(Body(self, request))

    def pieces(self, request: web.Request) -> Body:
        """The same as the pieces in which it came: `async with bodies.pieces(request) as body`."""
        return Body(self, request)

    def parsing(self, json: memoryview) -> contextlib.AbstractContextManager[None]:
        """Memory for JSON, the front of a body, while it is parsed and worked on.

        Raises HttpError (413) where it would take more than all memory there is, ResourceUnavailable while others do.
        """
        return self._parsing(json) if len(json) > _FREE else _NOTHING

    @contextlib.contextmanager
    def _parsing(self, json: memoryview) -> Iterator[None]:
        size = _weight(json)
        if size > self.memory.total:
            raise HttpError(
                413, f"this JSON takes {size >> 20} MB unpacked (option http_memory_mb); send tensors as binary data"
            )
        with self.memory.held(size):
            yield

    def check(self, request: web.Request) -> str:
        """Refuse a body by what its headers say of it; its encoding. Raises HttpError, ResourceUnavailable."""
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ENCODINGS:
            raise HttpError(415, f"Content-Encoding {encoding[:40]!r} is not read here; gzip and deflate are")
        length = request.content_length or 0
        if length > self.limit:
            raise self.too_large()
        self.memory.check(length)  # what is promised takes no memory yet, so that promises alone keep nobody out
        return encoding

    def too_large(self) -> HttpError:
        """The error for a body over the limit."""
        return HttpError(413, f"the body has more than the {self.limit} bytes that are read (option max_payload_mb)")


Pieces = Sequence[bytes | bytearray]


class Body:
    """A body and its memory: complete once it is entered."""

    __slots__ = ("_bodies", "_request", "_size", "_taken", "pieces")

    def __init__(self, bodies: Bodies, request: web.Request) -> None:
        self._bodies = bodies
        self._request = request
        self._taken = 0  # bytes that count
        self._size = 0  # bytes in `pieces`
        self.pieces: list[bytes | bytearray] = []  # one after the other they are the body; none is empty

    async def __aenter__(self) -> Body:
        await self._complete()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._close()

    def starts_with(self, start: bytes) -> bool:
        """Whether these are its first bytes."""
        return bool(self.pieces) and self.pieces[0].startswith(start)

    def whole(self) -> memoryview:
        """The body in one piece: copied where it came in several."""
        if len(self.pieces) > 1:
            self.pieces = [b"".join(self.pieces)]
        return memoryview(self.pieces[0] if self.pieces else b"")

    def _close(self) -> None:
        self._bodies.memory.give_back(self._taken)
        self._taken = 0

    async def _complete(self) -> None:
        """Read it to its end; without a single wait where all of it has come with the head."""
        encoding = self._bodies.check(self._request)
        content = self._request.content
        try:
            if encoding not in ("", "identity"):
                await self._unpack(Unpacking(encoding))
            elif content.is_eof():
                self._add(content.read_nowait())
            else:
                await self._gather()
        except (web.RequestPayloadError, ClientError) as error:
            self._close()
            raise BadInput(f"the body cannot be read: {error}") from None
        except BaseException:
            self._close()
            raise

    async def _gather(self) -> None:
        with _Watch(self._request.content, self._bodies.silence) as watch:
            while piece := await watch.next():
                self._add(piece)
        length = self._request.content_length
        if length is not None and self._size != length:
            raise BadInput(f"the body ended after {self._size} bytes; Content-Length says {length}")

    async def _unpack(self, unpacking: Unpacking) -> None:
        came = 0
        with _Watch(self._request.content, self._bodies.silence) as watch:
            while packed := await watch.next():
                came += len(packed)
                if came > self._bodies.limit:
                    raise self._bodies.too_large()
                for piece in unpacking.feed(packed):
                    self._add(piece)
        unpacking.check_ended()

    def _add(self, piece: bytes) -> None:
        size = len(piece)
        if not size:
            return
        self._bodies.memory.take(size)
        self._taken += size
        self._size += size
        if self._size > self._bodies.limit:
            raise self._bodies.too_large()
        last = self.pieces[-1] if self.pieces else None
        if isinstance(last, bytearray) and len(last) < _SMALL:
            last += piece
        else:
            self.pieces.append(bytearray(piece) if size < _SMALL and self.pieces else piece)


class _InOnePiece:
    """A body as a memoryview."""

    __slots__ = ("_body",)

    def __init__(self, body: Body) -> None:
        self._body = body

    async def __aenter__(self) -> memoryview:
        return (await self._body.__aenter__()).whole()

    async def __aexit__(self, *error: object) -> None:
        await self._body.__aexit__(*error)


class _Watch:
    """Reads pieces of a body, and gives it up after `silence` seconds without any: one timer, however many come."""

    def __init__(self, content: Any, silence: float) -> None:
        self._content = content
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()  # when something came
        self._timer: asyncio.TimerHandle | None = None
        self._over = False

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def next(self) -> bytes:
        """The next piece; empty at the body's end. Raises HttpError (408), and what aiohttp says of a spoilt body."""
        if self._timer is None and not self._content.is_eof():
            self._timer = self._loop.call_later(self._silence, self._look)
        piece: bytes
        piece, more = await self._content.readchunk()
        while more and not piece:  # the end of a chunk is not that of the body
            piece, more = await self._content.readchunk()
        if self._over:
            text = f"no byte of the body came for {self._silence:g} s (option http_silence_ms)"
            raise HttpError(408, text)
        self._last = self._loop.time()
        return piece

    def _look(self) -> None:
        left = self._last + self._silence - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        self._over = True
        self._content.feed_eof()  # ends the wait, and it is not waited for once more when the error is sent


def _weight(json: memoryview) -> int:
    """About how many bytes JSON takes as Python's objects."""
    text, end = json.obj, len(json)
    assert isinstance(text, bytes | bytearray)
    lists, maps, commas = (text.count(mark, 0, end) for mark in (b"[", b"{", b","))
    return _COPIES * end + _LIST * lists + _MAP * maps + _NUMBER * commas
