"""What the page is told while it is open: the server's state once a second, as server-sent events.

The gateway is asked once a second however many pages look, and not at all while none does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from parallel_infer import protocol
from parallel_infer.doors.gateway_link import GatewayLink
from parallel_infer.doors.http.page.snapshot import Snapshots
from parallel_infer.errors import InferError, ResourceUnavailable

INTERVAL = 1.0  # seconds
_PATIENCE = 3.0  # seconds for the gateway to answer before pages are told that it does not
_encode = msgspec.json.Encoder().encode
log = logging.getLogger(__name__)


def event(kind: str, value: Any) -> bytes:
    """One event as it goes over the wire (HTML standard, server-sent events)."""
    return b"event: " + kind.encode() + b"\ndata: " + _encode(value) + b"\n\n"


class Feed:
    """The events for every page that is open."""

    def __init__(self, link: GatewayLink, most: int) -> None:
        """`most` pages may look at a time."""
        self._link = link
        self._most = most
        self._viewers = 0
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._closed = False
        self._state = b""  # the newest event `state`, or `lost`
        self._models: list[dict[str, Any]] | None = None
        self._served = b""  # the newest event `models`

    @property
    def is_running(self) -> bool:
        """Whether somebody looks."""
        return self._task is not None

    @contextlib.contextmanager
    def viewer(self) -> Iterator[AsyncIterator[bytes]]:
        """Events for one page, from the newest on; one that reads slowly misses some. Raises ResourceUnavailable."""
        if self._viewers >= self._most:
            raise ResourceUnavailable(
                f"{self._most} pages are open already (option page_viewers); close one, or raise the option"
            )
        self._viewers += 1
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())
        try:
            yield self._events()
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._stop()

    def close(self) -> None:
        """End every page's events: the door stops."""
        self._closed = True
        self._news.set()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._state, self._served, self._models = b"", b"", None

    async def _events(self) -> AsyncIterator[bytes]:
        served = state = b""
        while not self._closed:
            news = self._news
            if self._served is not served and self._served:
                served = self._served
                yield served
            if self._state is not state and self._state:
                state = self._state
                yield state
            if news is self._news:
                await news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _run(self) -> None:
        snapshots = Snapshots()
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                status = msgspec.msgpack.decode(await self._link.ask(protocol.Status, _PATIENCE))
                await self._see_models(status.pop("served"))
                self._state = event("state", snapshots.add(status, time.monotonic()))
            except InferError as error:
                self._state = event("lost", {"code": error.code, "error": str(error)})
            except Exception as error:
                log.exception("the page's figures failed")
                self._state = event("lost", {"code": InferError.code, "error": f"figures failed: {error}"})
            self._tell()
            due = max(due + INTERVAL, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _see_models(self, served: list[dict[str, Any]]) -> None:
        if served == self._models:
            return
        views = await self._link.models(fresh=True)
        shown = []
        for facts in served:
            view = views.get(facts["name"])
            extra = {} if view is None else {"row": view.row, "thresholds": view.thresholds}
            shown.append({**facts, "row": (0, 0), "thresholds": {}, **extra})
        self._models = served
        self._served = event("models", shown)
