"""Many pictures over one connection, which is looked after while their source takes its time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Self

from parallel_infer.client.connection import SLICE, Connection
from parallel_infer.client.greeting import among_many
from parallel_infer.client.payload import Picture
from parallel_infer.client.window import Window

_END = object()


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

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._in_use.release()
        self._thread.join()

    def pull(self) -> Picture | object:
        """The next picture, or `_END`."""
        self._in_use.release()
        try:
            return next(self._pictures, _END)
        finally:
            self._in_use.acquire()

    def _mind(self) -> None:
        while not self._over.wait(SLICE):
            with self._in_use:
                if not self._over.is_set():
                    self._window.retry()
                    self._connection.upkeep()


def drive(window: Window, connection: Connection, pictures: Iterable[Picture]) -> None:
    """Fill the window, wait for a reply, and again, until every picture is done."""
    if isinstance(pictures, (list, tuple)):
        _drive(partial(next, iter(pictures), _END), window, connection)
        return
    with Minder(window, connection, iter(pictures)) as minder:
        _drive(minder.pull, window, connection)


def _drive(pull: Callable[[], Any], window: Window, connection: Connection) -> None:
    exhausted = False
    while not exhausted or not window.done:
        while not exhausted and window.open:
            picture = pull()
            exhausted = picture is _END
            if not exhausted:
                among_many(picture, connection, window.timeout)
                window.add(picture)
        window.retry()
        if not window.done:
            connection.receive(window.patience)
