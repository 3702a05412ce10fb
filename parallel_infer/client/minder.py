"""Looks after a connection while its owner waits for something else: a source that takes its time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from parallel_infer.client.connection import SLICE, Connection
from parallel_infer.client.payload import Picture
from parallel_infer.client.window import Window

END = object()


class Minder:
    """Pulls pictures for the thread that owns the connection; meanwhile replies are taken in and refusals repeated.

    The connection is used by one thread at a time: by the owner, or, while it pulls, by the thread of this object.
    """

    def __init__(self, window: Window, connection: Connection, pictures: Iterator[Picture]) -> None:
        self._window = window
        self._connection = connection
        self._pictures = pictures
        self._in_use = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._mind, name="parallel-infer-minder", daemon=True)

    def __enter__(self) -> Self:
        self._in_use.acquire()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._in_use.release()
        self._thread.join()

    def pull(self) -> Picture | object:
        """The next picture, or END."""
        self._in_use.release()
        try:
            return next(self._pictures, END)
        finally:
            self._in_use.acquire()

    def _mind(self) -> None:
        while not self._over.wait(SLICE):
            with self._in_use:
                if not self._over.is_set():
                    self._window.retry()
                    self._connection.upkeep()
