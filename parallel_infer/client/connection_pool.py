"""Connections to one server, so that each is used by one thread at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from parallel_infer.client.connection import Connection
from parallel_infer.client.endpoint import Address
from parallel_infer.errors import ServerUnavailable


class ConnectionPool:
    """As many connections as there were ever used at once."""

    def __init__(self, address: Address) -> None:
        self.closed = False
        self._address = address
        self._idle = [Connection(address)]

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """One for this thread alone. Raises ServerUnavailable once the pool is closed."""
        connection = self._take()
        try:
            yield connection
        finally:
            self._idle.append(connection)
            if self.closed:  # meanwhile, by another thread
                self.close()

    def close(self) -> None:
        """Close those that nobody uses now, and each of the others when its user is done."""
        self.closed = True
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    def _take(self) -> Connection:
        if self.closed:
            raise ServerUnavailable("The client is closed")
        try:
            return self._idle.pop()
        except IndexError:
            return Connection(self._address)
