"""One stream of requests: many at work at a time, answers as they are ready, no more of them than the client takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

_DEPTH = 64  # requests of one stream that are at work, or whose answers the client has not taken


class Stream:
    """Answers requests with `answer`, which raises nothing but CancelledError."""

    def __init__(self, answer: Callable[[Any], Awaitable[Any]]) -> None:
        self._answer = answer
        self._ready: asyncio.Queue[Any] = asyncio.Queue()
        self._room = asyncio.Semaphore(_DEPTH)
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[None] | None = None
        self.stopped = False  # the door ended it, not the client

    async def answers(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The answers to `requests` until the client has sent its last one, or `stop`."""
        self._reading = asyncio.ensure_future(self._read(requests))
        try:
            while (answer := await self._ready.get()) is not None:
                yield answer
                self._room.release()
        finally:
            self._reading.cancel()
            for task in self._tasks:
                task.cancel()

    def stop(self) -> None:
        """Read no more; the stream ends when what is at work is answered."""
        self.stopped = True
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self, requests: AsyncIterator[Any]) -> None:
        try:
            async for request in requests:
                await self._room.acquire()
                task = asyncio.ensure_future(self._work(request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            last = asyncio.ensure_future(self._finish())
            self._tasks.add(last)
            last.add_done_callback(self._tasks.discard)

    async def _work(self, request: Any) -> None:
        await self._ready.put(await self._answer(request))

    async def _finish(self) -> None:
        if others := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(others)
        await self._ready.put(None)
