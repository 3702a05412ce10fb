"""Keys of HTTP and gRPC clients: random tokens, of which the server's folder of keys holds the SHA-256."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol


class Holder(Protocol):
    """Whose token it is."""

    @property
    def name(self) -> str: ...
    @property
    def manages(self) -> bool: ...


class TokenBook(Protocol):
    """Finds clients by the SHA-256 of their token, as hex digits; None for a stranger's."""

    def by_token(self, digest: str) -> Holder | None: ...


_BELIEVED = 1.0  # seconds for which a token that was found needs not be looked up again


class Tokens:
    """Tells whose a token is. The book's files are looked at in a thread: a folder that hangs holds up nobody else."""

    def __init__(self, book: TokenBook, clock: Callable[[], float] = time.monotonic) -> None:
        self._book = book
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "tokens")
        self._found: dict[str, tuple[float, Holder]] = {}  # by token: until when, and whose

    async def holder(self, token: str) -> Holder | None:
        """The client whose token this is; None for a stranger's or none. A change counts within a second."""
        if not token or len(token) > 256:
            return None
        until, known = self._found.get(token, (0.0, None))
        if known is not None and self._clock() < until:
            return known
        sent = token.encode(errors="surrogatepass")  # it may have been no UTF-8
        digest = hashlib.sha256(sent).hexdigest()
        holder = await asyncio.get_running_loop().run_in_executor(self._thread, self._book.by_token, digest)
        if holder is None:
            self._found.pop(token, None)
        else:
            self._found[token] = self._clock() + _BELIEVED, holder
        return holder
