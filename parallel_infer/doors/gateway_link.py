"""A door's connection to the gateway: jobs out, answers back, and what is served, all in the door's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from parallel_infer import protocol
from parallel_infer.answers.answer import Answer
from parallel_infer.client.async_driver import Driver
from parallel_infer.client.endpoint import Address
from parallel_infer.client.holds import Holds
from parallel_infer.client.pending import Outcome, Pending
from parallel_infer.client.requests import answer_of
from parallel_infer.doors.model_view import ModelView, fan_view
from parallel_infer.errors import InferError, ServerStopping, ServerUnavailable, UnknownModel
from parallel_infer.model_spec import PICTURE, is_hidden
from parallel_infer.protocol import Tensor

_KNOWN_FOR = 1.0  # seconds for which a list of models is believed
_LENT_FROM = 16384  # bytes from which a payload goes through shared memory
_LOAD_TIMEOUT = 300.0  # seconds for a file's own graph to be loaded at its first use
_PATIENCE = 5.0  # seconds for everything that is no job
_LAST_REPLIES = 1.0  # seconds for what the gateway sent last to arrive
_STOPPING = "the server is stopping"
_views = msgspec.msgpack.Decoder(list[ModelView])


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What the jobs of one request have in common."""

    model: str
    options: msgspec.Raw = msgspec.Raw(b"\x80")
    timeout: float | None = None  # seconds; None: the server's default
    priority: int = 0
    client: str = ""  # whom the door speaks for: the gateway shares room among these
    source: str = ""  # the live stream a frame belongs to
    part: bool = False  # of a request that another job is counted for

    def of(self, index: int) -> Work:
        """What job `index` of a request with several is told: the first of them counts as the request."""
        return msgspec.structs.replace(self, part=True) if index else self


class GatewayLink:
    """Made inside the loop that drives it. A gateway that restarts is not noticed: jobs are sent again."""

    def __init__(self, address: Address, door: str, timeout: float) -> None:
        self._driver = Driver(address)
        self._driver.connection.holds = Holds(0.0)  # each client of the door is told for itself
        self._endpoint = address.endpoint
        self._door = door
        self._timeout = timeout  # seconds, the server's default for a job
        self._models: dict[str, ModelView] = {}
        self.files: dict[str, str] = {}  # digests of the models that are served for doors alone, by name
        self._known_until = 0.0
        self._asking: asyncio.Task[dict[str, ModelView]] | None = None
        self._waiting = 0  # requests without an outcome
        self._all_settled = asyncio.Event()
        self._ending = False

    # --- a door's life -----------------------------------------------------------------------------------------------

    async def reach(self) -> None:
        """Wait until the gateway has answered."""
        while not self._ending:
            try:
                await self.models(fresh=True)
            except InferError:
                continue  # it took seconds: the gateway is away
            return

    async def end(self) -> None:
        """The gateway has left: what it replied last is taken in, and whatever has no reply gets ServerStopping."""
        self._ending = True
        if self._waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_settled.wait(), _LAST_REPLIES)
        self._driver.connection.fail_all(ServerStopping(_STOPPING))

    async def _settled(self, pending: Pending) -> Outcome:
        """The outcome of a request, in words for clients of the door, who do not see the gateway."""
        if self._ending:
            raise ServerStopping(_STOPPING)
        self._waiting += 1
        self._all_settled.clear()
        try:
            outcome = await self._driver.ask(pending)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._all_settled.set()
        if isinstance(outcome, ServerStopping):
            return ServerStopping(_STOPPING)
        if isinstance(outcome, ServerUnavailable) and self._endpoint in str(outcome):
            return ServerUnavailable(f"the server is restarting and had no answer within {pending.timeout:g} s")
        return outcome

    # --- jobs --------------------------------------------------------------------------------------------------------

    async def picture(self, work: Work, *parts: bytes | bytearray | memoryview) -> Answer:
        """The answer about one encoded picture, the bytes `parts` one after the other. Raises the job's error."""
        return await self.job(work, "picture", (), parts)

    async def job(
        self, work: Work, kind: str, tensors: tuple[Tensor, ...], parts: Sequence[bytes | bytearray | memoryview]
    ) -> Answer:
        """The answer of one job whose payload is `parts`, one after the other. Raises the job's error.

        A large payload is written into a slot that the gateway lent; cancelling the task cancels the job.
        """
        connection = self._driver.connection
        timeout = self._timeout if work.timeout is None else work.timeout
        request = protocol.Infer(
            id=connection.number(),
            model=work.model,
            kind=kind,  # type: ignore[arg-type]
            tensors=tensors,
            timeout=timeout,
            priority=work.priority,
            options=work.options,
            source=work.source,
            part=work.part or msgspec.UNSET,
            client=f"{self._door}/{work.client}",
        )
        pending = Pending(request, timeout)
        size = sum(map(len, parts))
        slot = None
        if size >= _LENT_FROM and connection.lent is not None:
            connection.lent.expect(self._waiting + 1)
            slot = connection.lent.claim(size)
        if slot is None:
            pending.payload = memoryview(parts[0]) if len(parts) == 1 else b"".join(parts)
        else:
            offset, data = 0, slot.data
            for part in parts:
                data[offset : offset + len(part)] = part
                offset += len(part)
            pending.lend(slot)
        return answer_of(await self._settled(pending))

    async def together(self, jobs: Sequence[Any]) -> list[Answer]:
        """Answers of several jobs of one request, in order; the first error ends the others and is raised."""
        if len(jobs) == 1:
            return [await jobs[0]]
        tasks = [asyncio.ensure_future(job) for job in jobs]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    # --- everything else ---------------------------------------------------------------------------------------------

    async def ask(self, kind: type[protocol.Request], timeout: float = _PATIENCE, **fields: Any) -> Any:  # noqa: ASYNC109
        """The result of a request that is no job. Raises its error."""
        request = kind(id=self._driver.connection.number(), **fields)
        outcome = await self._settled(Pending(request, timeout))
        if isinstance(outcome, InferError):
            raise outcome
        if isinstance(outcome, Answer):
            raise InferError("the gateway sent an answer for a question")
        return outcome

    async def models(self, *, fresh: bool = False) -> Mapping[str, ModelView]:
        """What is served, by name; at most `_KNOWN_FOR` seconds old."""
        if not fresh and time.monotonic() < self._known_until:
            return self._models
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask_models())
        return await asyncio.shield(self._asking)

    async def _ask_models(self) -> dict[str, ModelView]:
        try:
            found = _views.decode(await self.ask(protocol.Models, detail=True))
            self._models = {view.name: view for view in found if not is_hidden(view.name)}
            self.files = {view.name: view.digest for view in found if is_hidden(view.name)}
            self._known_until = time.monotonic() + _KNOWN_FOR
            return self._models
        finally:
            self._asking = None

    async def find(self, name: str) -> tuple[ModelView, bool]:
        """The model called `name` or `name.picture`, and whether its pictures are meant. Raises UnknownModel.

        Chains, and models joined with + that are asked together, take pictures alone.
        """
        if time.monotonic() < self._known_until and name in self._models:
            return self._models[name], bool(self._models[name].chain)
        for fresh in (False, True):
            models = await self.models(fresh=fresh)
            if name in models:
                return models[name], bool(models[name].chain)
            stem = name.removesuffix(PICTURE)
            if name.endswith(PICTURE) and stem in models and models[stem].takes_pictures:
                return models[stem], True
            if (fan := fan_view(stem, models)) is not None:
                return fan, True
        known = ", ".join(sorted(models)) or "none"
        raise UnknownModel(f"no model {name!r} is served; served are: {known}")

    async def load(self, name: str, path: str, options: Mapping[str, Any]) -> None:
        """Have a model file served; returns when it is."""
        await self.ask(protocol.Load, _LOAD_TIMEOUT, name=name, path=path, options=dict(options))
        await self.models(fresh=True)

    async def load_chain(self, name: str, steps: str) -> None:
        """Have a chain served."""
        await self.ask(protocol.LoadChain, name=name, steps=steps)
        await self.models(fresh=True)

    async def unload(self, name: str) -> None:
        """Stop serving a model; returns when its last job is answered."""
        await self.ask(protocol.Unload, _LOAD_TIMEOUT, name=name)

    async def reload(self, name: str) -> None:
        """Load a configured model's file anew; returns when it is served."""
        await self.ask(protocol.Reload, _LOAD_TIMEOUT, name=name)
        await self.models(fresh=True)

    def close(self) -> None:
        """Close the connection."""
        self._driver.close()


def option_of(name: str, value: Any) -> Any:
    """An option's value where it may have come as text: a number, true or false, "a,b" for class_filter, else text."""
    if name == "class_filter":
        listed = value if isinstance(value, list) else [part.strip() for part in str(value).split(",")]
        return [_class_of(part) for part in listed if part != ""]
    if not isinstance(value, str):
        return value
    lowered = value.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    try:
        return int(lowered) if lowered.lstrip("-").isdigit() else float(lowered)
    except ValueError:
        return value


def _class_of(part: Any) -> Any:
    text = str(part)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else part
