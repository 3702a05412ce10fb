"""The client for asyncio."""
# ruff: noqa: ASYNC109 - a timeout is the job's deadline at the server, not only how long we wait

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from parallel_infer import protocol
from parallel_infer.answers.answer import Answer
from parallel_infer.client.arguments import (
    Drop,
    Errors,
    checked_address,
    checked_drop,
    checked_errors,
    checked_in_flight,
    checked_name,
    checked_path,
    checked_pictures,
    checked_source,
    checked_steps,
)
from parallel_infer.client.async_driver import Driver
from parallel_infer.client.async_stream import AsyncStream, Source, pulled
from parallel_infer.client.endpoint import Address
from parallel_infer.client.held_frame import UNREACHED, HeldFrame, check_frame, needs_terms
from parallel_infer.client.model_options import model_options
from parallel_infer.client.payload import Picture, payload_of
from parallel_infer.client.pending import Pending
from parallel_infer.client.reading import is_open_ended
from parallel_infer.client.requests import (
    IN_FLIGHT,
    LOAD_TIMEOUT,
    LONGEST_WAIT,
    STREAM_IN_FLIGHT,
    Job,
    Models,
    answer_of,
    job_of,
    result_of,
)
from parallel_infer.client.window import Window
from parallel_infer.errors import BadInput, InferError, ServerUnavailable
from parallel_infer.keys.client import HasKeys, Key
from parallel_infer.seconds import checked_timeout


class AsyncClient:
    """Speaks with one server, in one event loop. Close it, or use it in an `async with`.

    The same promises as `Client`: every call ends within its timeout, and a server that restarts meanwhile is not
    noticed. Cancelling the task that awaits a call asks the server to forget the job.
    """

    def __init__(
        self,
        address: str = "tcp://127.0.0.1:5555",
        key: str | os.PathLike[str] | HasKeys | None = None,
        timeout: float = 5.0,
    ) -> None:
        self.timeout = checked_timeout(timeout)  # seconds, for calls that name none
        self._address = Address(checked_address(address), None if key is None else Key.of(key))
        self._driver: Driver | None = None
        self._closed = False
        self._held: dict[int, HeldFrame] = {}  # frames being filled, by the id of their array

    async def infer(
        self, model: Models, picture: Picture, *, timeout: float | None = None, priority: int = 0, **options: Any
    ) -> Answer:
        """The answer for one picture; see `Client.infer`."""
        return await self._infer(job_of(model, self._timeout(timeout), priority, options), picture)

    def submit(
        self, model: Models, picture: Picture, *, timeout: float | None = None, priority: int = 0, **options: Any
    ) -> asyncio.Task[Answer]:
        """Send a picture and return the task that will have its answer; cancelling the task cancels the job."""
        return asyncio.ensure_future(self.infer(model, picture, timeout=timeout, priority=priority, **options))

    async def infer_many(
        self,
        model: Models,
        pictures: Source,
        *,
        in_flight: int | None = None,
        timeout: float | None = None,
        errors: Errors = "raise",
        **options: Any,
    ) -> list[Answer | InferError]:
        """Answers for many pictures of an iterable or async iterable, in order; see `Client.infer_many`."""
        job = job_of(model, self._timeout(timeout), 0, options)
        room, errors = checked_in_flight(in_flight, IN_FLIGHT), checked_errors(errors)
        pictures = checked_pictures(pictures)
        driver = self._driving()
        changed, refused = asyncio.Event(), asyncio.Event()

        def settled() -> None:
            changed.set()
            refused.set()

        window = Window(driver.connection, job, room, settled)
        retrying = asyncio.create_task(_retry(window, driver, refused))  # also while the source takes its time
        try:
            async for picture in pulled(pictures):
                await self._learn_terms(picture)
                window.add(picture)
                driver.stir()
                while not window.open:
                    await _wait_for(changed)
            while not window.done:
                await _wait_for(changed)
        except BaseException:
            window.abandon()
            raise
        finally:
            retrying.cancel()
        return window.results(errors)

    def stream(
        self,
        model: Models,
        frames: Source,
        *,
        drop: Drop = "none",
        source: str = "",
        in_flight: int | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> AsyncIterator[tuple[int, Answer | InferError]]:
        """(frame number, answer or error) of a live source, in order; see `Client.stream`."""
        job = job_of(model, self._timeout(timeout), 0, options)
        job = job._replace(source=checked_source(source), drop=checked_drop(drop))
        room = checked_in_flight(in_flight, STREAM_IN_FLIGHT[job.drop])
        return AsyncStream(partial(self._infer, job), checked_pictures(frames, "frames"), job.drop, room).run()

    @contextlib.asynccontextmanager
    async def frame(self, height: int, width: int) -> AsyncIterator[npt.NDArray[np.uint8]]:
        """A frame to fill, uint8 [height, width, 3] BGR, that `infer` sends without a copy; see `Client.frame`."""
        driver = self._driving()
        check_frame(height, width, driver.connection.terms)
        if needs_terms(driver.connection, height, width):
            with contextlib.suppress(*UNREACHED):
                await self._ask(protocol.Hello)
            check_frame(height, width, driver.connection.terms)
        held = HeldFrame.claim(driver.connection, height, width)
        if held is None:
            await driver.lending(self.timeout)
            held = HeldFrame.claim(driver.connection, height, width) or HeldFrame(None, height, width)
        self._held[id(held.array)] = held
        try:
            yield held.array
        finally:
            del self._held[id(held.array)]
            held.release()

    async def models(self) -> Any:
        """What is served."""
        return await self._ask(protocol.Models)

    async def status(self) -> Any:
        """How the server is: processes, queues, rings, counters."""
        return await self._ask(protocol.Status)

    async def ready(self) -> bool:
        """Whether a picture gets through every stage of every model."""
        return bool((await self.health())["ready"])

    async def health(self) -> Any:
        """What `ready` found: "ready" in all, "models" by name ("ready", or why not), and the "states" they are in."""
        return await self._ask(protocol.Ready)

    async def trace(self, seconds: float = 5.0) -> Any:
        """What every process did for the next `seconds`; `parallel_infer.observe.chrome_trace` makes a file of it."""
        seconds = checked_timeout(seconds, protocol.MAX_TRACE, "seconds")
        return await self._ask(protocol.Trace, seconds + self.timeout, seconds=seconds)

    async def load(
        self, name: str, path: str | os.PathLike[str], *, timeout: float = LOAD_TIMEOUT, **options: Any
    ) -> Any:
        """Have the server serve a model file of its machine under `name`, in place of the model of that name.

        The result has the `warnings` of the model, each with the option that settles it, and the `evidence` for what
        it was taken for. `options` are those of a model's table in the configuration.
        """
        fields = {"name": checked_name(name), "path": checked_path(path), "options": model_options(options)}
        return await self._ask(protocol.Load, timeout, **fields)

    async def load_chain(self, name: str, steps: str) -> Any:
        """Have the server serve a chain; see `Client.load_chain`."""
        return await self._ask(protocol.LoadChain, name=checked_name(name), steps=checked_steps(steps))

    async def unload(self, name: str) -> Any:
        """Have the server stop serving a model or a chain; see `Client.unload`."""
        return await self._ask(protocol.Unload, name=checked_name(name))

    async def stop(self) -> Any:
        """Have the server stop; see `Client.stop`."""
        return await self._ask(protocol.Stop)

    async def close(self) -> None:
        """Close the connection. Jobs still on their way fail with ServerUnavailable."""
        self._closed = True
        if self._driver is not None:
            self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _infer(self, job: Job, picture: Picture) -> Answer:
        driver = self._driving()
        held = self._held.get(id(picture))
        if held is not None:
            return answer_of(await driver.ask(held.pending(job, driver.connection)))
        await self._learn_terms(picture)
        payload = payload_of(picture, job.color, driver.connection.terms.most)
        return answer_of(await driver.ask(job.pending(driver.connection, payload)))

    async def _learn_terms(self, picture: Picture) -> None:
        """What the server takes, before something without an end is read."""
        if not self._driving().connection.terms.known and is_open_ended(picture):
            with contextlib.suppress(*UNREACHED):
                await self._ask(protocol.Hello)

    async def _ask(self, kind: type[protocol.Request], timeout: float | None = None, **fields: Any) -> Any:
        driver = self._driving()
        request = kind(id=driver.connection.number(), **fields)
        return result_of(await driver.ask(Pending(request, checked_timeout(self._timeout(timeout), LONGEST_WAIT))))

    def _driving(self) -> Driver:
        """The connection of this client; the first call opens it, in the loop that will drive it."""
        if self._closed:
            raise ServerUnavailable("The client is closed")
        if self._driver is None:
            self._driver = Driver(self._address)
        elif not self._driver.is_here:
            raise BadInput(
                "this AsyncClient belongs to another event loop, the one it was first used in. Make one AsyncClient "
                "for each event loop, that is for each asyncio.run"
            )
        return self._driver

    def _timeout(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else timeout


async def _wait_for(changed: asyncio.Event) -> None:
    """Wait until a picture of the window is answered or refused."""
    changed.clear()
    await changed.wait()


async def _retry(window: Window, driver: Driver, refused: asyncio.Event) -> None:
    """Send pictures that were refused again, each time a pause is over."""
    while True:
        refused.clear()
        window.retry()
        driver.stir()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(refused.wait(), window.patience)
