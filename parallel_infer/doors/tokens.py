"""Keys of HTTP and gRPC clients: random tokens, of which the server's folder of keys holds the SHA-256."""

from __future__ import annotations

import hashlib
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


class Tokens:
    """Tells whose a token is."""

    def __init__(self, book: TokenBook) -> None:
        self._book = book

    def holder(self, token: str) -> Holder | None:
        """The client whose token this is; None for a stranger's or none."""
        if not token or len(token) > 256:
            return None
        sent = token.encode(errors="surrogatepass")  # it may have been no UTF-8
        return self._book.by_token(hashlib.sha256(sent).hexdigest())
