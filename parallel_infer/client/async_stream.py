"""A live source in an event loop: frames are pulled by a task, answers come out in order as soon as they are there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable

from parallel_infer.answers.answer import Answer
from parallel_infer.client.arguments import Drop
from parallel_infer.client.in_flight_queue import Entry, InFlightQueue, take
from parallel_infer.client.payload import Picture
from parallel_infer.errors import InferError

Source = Iterable[Picture] | AsyncIterable[Picture]

_END = object()


async def pulled(source: Source) -> AsyncIterator[Picture]:
    """The pictures of either kind of iterable; a plain one is pulled in the loop."""
    if isinstance(source, AsyncIterable):
        async for picture in source:
            yield picture
    else:
        for picture in source:
            yield picture


async def pulled_aside(source: Source) -> AsyncIterator[Picture]:
    """The same for a source that may block, as cameras do: a plain iterable is pulled in a thread."""
    if isinstance(source, AsyncIterable):
        async for picture in source:
            yield picture
        return
    iterator = iter(source)
    while (found := await asyncio.to_thread(next, iterator, _END)) is not _END:
        yield found  # type: ignore[misc]


class _Frame(Entry):
    """One frame, from being pulled to its outcome being handed out."""

    def __init__(self, picture: Picture) -> None:
        super().__init__()
        self.picture = picture
        self.task: asyncio.Task[None] | None = None


class AsyncStream:
    """The frames of one source. At most `in_flight` are sent and not handed out; at most one waits to be sent."""

    def __init__(
        self, infer: Callable[[Picture], Awaitable[Answer]], frames: Source, drop: Drop, in_flight: int
    ) -> None:
        self._infer = infer
        self._frames = frames
        self._drop = drop
        self._queue: InFlightQueue[_Frame] = InFlightQueue(in_flight)
        self._changed = asyncio.Condition()
        self._ended = False

    async def run(self) -> AsyncIterator[tuple[int, Answer | InferError]]:
        """(frame number, answer or error) in order; an error of the source itself is raised after the last one."""
        feeder = asyncio.create_task(self._feed())
        number = 0
        try:
            while (outcome := await self._next()) is not None:
                yield number, outcome
                number += 1
            await feeder
        finally:
            tasks = [feeder, *(frame.task for frame in self._queue if frame.task is not None)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next(self) -> Answer | InferError | None:
        """The outcome of the next frame, once it is there; None after the last."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._queue.first_done or (self._ended and self._queue.empty))
            frame = self._queue.pop_done()
            if frame is None:
                return None
            if frame.task is not None:
                self._queue.end()
            self._send_waiting()
            self._changed.notify_all()
            return frame.outcome

    async def _feed(self) -> None:
        try:
            async for picture in pulled_aside(self._frames):
                await self._take(picture)
        finally:
            async with self._changed:
                self._ended = True
                self._changed.notify_all()

    async def _take(self, picture: Picture) -> None:
        async with self._changed:
            if self._drop == "none":
                await self._changed.wait_for(lambda: self._queue.has_room)
            take(self._queue, _Frame(picture))
            self._send_waiting()
            self._changed.notify_all()

    def _send_waiting(self) -> None:
        while (frame := self._queue.next_waiting()) is not None:
            frame.task = asyncio.create_task(self._answered(frame))

    async def _answered(self, frame: _Frame) -> None:
        try:
            outcome: Answer | InferError = await self._infer(frame.picture)
        except InferError as error:
            outcome = error
        except Exception as error:
            outcome = InferError(f"{type(error).__name__}: {error}")
        async with self._changed:
            frame.outcome = outcome
            self._changed.notify_all()
