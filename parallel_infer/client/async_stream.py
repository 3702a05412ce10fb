"""A live source in an event loop: frames are pulled by a task, answers come out in order as soon as they are there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from parallel_infer.answers.answer import Answer
from parallel_infer.client.payload import Picture
from parallel_infer.client.requests import Drop
from parallel_infer.errors import Dropped, InferError

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


class _Place:
    """One frame, from being pulled to its outcome being handed out."""

    __slots__ = ("outcome", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.outcome: Answer | InferError | None = None


class AsyncStream:
    """The frames of one source. At most `in_flight` are sent and not handed out; at most one waits to be sent."""

    def __init__(
        self, infer: Callable[[Picture], Awaitable[Answer]], frames: Source, drop: Drop, in_flight: int
    ) -> None:
        self._infer = infer
        self._frames = frames
        self._drop = drop
        self._room = in_flight
        self._places: deque[_Place] = deque()  # in order of the frames
        self._waiting: tuple[_Place, Picture] | None = None
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
            tasks = [feeder, *(place.task for place in self._places if place.task is not None)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next(self) -> Answer | InferError | None:
        """The outcome of the next frame, once it is there; None after the last."""
        async with self._changed:
            await self._changed.wait_for(self._deliverable)
            if not self._places:
                return None
            place = self._places.popleft()
            if place.task is not None:
                self._room += 1
            if self._waiting is not None and self._room:
                waiting, self._waiting = self._waiting, None
                self._send(*waiting)
            self._changed.notify_all()
            return place.outcome

    def _deliverable(self) -> bool:
        return self._places[0].outcome is not None if self._places else self._ended

    async def _feed(self) -> None:
        try:
            async for frame in pulled_aside(self._frames):
                await self._take(frame)
        finally:
            async with self._changed:
                self._ended = True
                self._changed.notify_all()

    async def _take(self, frame: Picture) -> None:
        async with self._changed:
            if self._drop == "none":
                await self._changed.wait_for(lambda: self._room > 0)
            if self._waiting is not None:
                self._waiting[0].outcome = Dropped("A newer frame of the same source took the place of this one")
                self._waiting = None
            place = _Place()
            self._places.append(place)
            if self._room:
                self._send(place, frame)
            else:
                self._waiting = place, frame
            self._changed.notify_all()

    def _send(self, place: _Place, picture: Picture) -> None:
        self._room -= 1
        place.task = asyncio.create_task(self._answered(place, picture))

    async def _answered(self, place: _Place, picture: Picture) -> None:
        try:
            outcome: Any = await self._infer(picture)
        except InferError as error:
            outcome = error
        except Exception as error:
            outcome = InferError(f"{type(error).__name__}: {error}")
        async with self._changed:
            place.outcome = outcome
            self._changed.notify_all()
