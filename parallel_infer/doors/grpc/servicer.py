"""The methods of inference.GRPCInferenceService and grpc.health.v1.Health, as handlers without generated code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote

import grpc
import msgspec
from google.protobuf.message import DecodeError

from parallel_infer import protocol
from parallel_infer.doors import model_view
from parallel_infer.doors.access import MAY_NOT_MANAGE, is_of_this_machine
from parallel_infer.doors.gateway_link import GatewayLink
from parallel_infer.doors.grpc.codec import read_request, typed_weight, write_response
from parallel_infer.doors.grpc.messages import message
from parallel_infer.doors.grpc.stream import Stream
from parallel_infer.doors.lifetime import Activity
from parallel_infer.doors.memory import Memory
from parallel_infer.doors.model_view import ModelView
from parallel_infer.doors.service import InferenceService
from parallel_infer.doors.statistics import model_statistics
from parallel_infer.doors.statuses import INTERNAL, STATUSES
from parallel_infer.doors.tokens import Tokens
from parallel_infer.errors import BadInput, InferError, ServerStopping, Unauthorized, UnknownModel

log = logging.getLogger(__name__)
SERVICE, HEALTH = "inference.GRPCInferenceService", "grpc.health.v1.Health"
_MOST_TEXT = 4096  # bytes of an error's text, escaped; grpc's clients take 8 KB of headers
_COPIES = 2  # of a message: as it came, and as it is read
_FAILED = "the server failed at this call; its log has more"

Method = Callable[[Any, "Call"], Awaitable[Any]]


class Call:
    """Who calls, and what they may do."""

    def __init__(self, context: Any, tokens: Tokens | None) -> None:
        self.client = _host(context.peer())
        self.known = tokens is None
        self.manages = self.known and is_of_this_machine(unquote(self.client))

    @classmethod
    async def of(cls, context: Any, tokens: Tokens | None) -> Call:
        """The call, and whose token it shows."""
        call = cls(context, tokens)
        holder = None if tokens is None else await tokens.holder(_token(context.invocation_metadata()))
        if holder is not None:
            call.client, call.manages, call.known = holder.name, holder.manages, True
        return call


def _host(peer: str) -> str:
    """The host of grpc's "ipv4:127.0.0.1:1234"."""
    return peer.rpartition(":")[0].partition(":")[2] or peer


def _token(metadata: Any) -> str:
    for name, value in metadata or ():
        if name == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""


class _NoKey(Unauthorized):
    """Nobody knows who calls."""


def _short(text: str) -> str:
    """A text that fits among a call's last headers: clients end a call with a status of their own where it does not."""
    kept = text
    while len(quote(kept, errors="replace")) > _MOST_TEXT:
        kept = kept[: len(kept) * 3 // 4]
    return kept if kept is text else f"{kept} ..."


def _told(error: Exception) -> tuple[str, str]:
    """The name of the status that a call ends with, and its text."""
    if isinstance(error, _NoKey):
        return grpc.StatusCode.UNAUTHENTICATED.name, str(error)
    if isinstance(error, InferError):
        return STATUSES.get(error.code, INTERNAL).grpc, _short(f"{error.code}: {error}")
    log.error("a call failed", exc_info=error)
    return grpc.StatusCode.INTERNAL.name, _FAILED


class Servicer:
    """Answers each method of the two services."""

    def __init__(
        self, link: GatewayLink, tokens: Tokens | None, version: str, activity: Activity, memory: Memory
    ) -> None:
        self._link = link
        self._activity = activity
        self._memory = memory
        self._streams: set[Stream] = set()
        self._service = InferenceService(link)
        self._tokens = tokens
        self._version = version

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a grpc.aio server is told."""
        unary: dict[str, Method] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server,
            "ModelMetadata": self._metadata,
            "ModelInfer": self._infer,
            "ModelConfig": self._config,
            "ModelStatistics": self._statistics,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        methods = {name: self._unary(method, f"inference.{name}Request") for name, method in unary.items()}
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream, None, _serialised)
        health = {"Check": self._unary(self._check, "grpc.health.v1.HealthCheckRequest", free=True)}
        return [
            grpc.method_handlers_generic_handler(SERVICE, methods),
            grpc.method_handlers_generic_handler(HEALTH, health),
        ]

    def _unary(self, method: Method, asked: str, *, free: bool = False) -> Any:
        read = message(asked).FromString

        async def handle(data: bytes, context: Any) -> Any:
            self._activity.begin()
            status, failed, answer = "CANCELLED", None, None
            try:
                call = await Call.of(context, self._tokens)
                if not (call.known or free):
                    raise _NoKey(_ASKS)
                with self._memory.held(_COPIES * len(data)):
                    answer = await method(_read(read, data), call)
                status = "OK"
            except asyncio.CancelledError:
                raise
            except Exception as error:
                failed = error
                status, text = _told(error)
            finally:
                self._activity.end(status, failed, len(data), 0 if answer is None else answer.ByteSize())
            if failed is not None:
                await context.abort(grpc.StatusCode[status], text)
            return answer

        return grpc.unary_unary_rpc_method_handler(handle, None, _serialised)

    # --- inference ---------------------------------------------------------------------------------------------------

    async def _infer(self, request: Any, call: Call) -> Any:
        with self._memory.held(typed_weight(request)):
            return write_response(await self._service.infer(read_request(request, call.client)))

    async def _stream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Answers as they are ready, in no promised order; a bad request is an error in the stream, which goes on."""
        call = await Call.of(context, self._tokens)
        if not call.known:
            self._activity.turn_away("UNAUTHENTICATED", Unauthorized(_ASKS))
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, _ASKS)
        stream = Stream(lambda request: self._in_stream(request, call))
        self._streams.add(stream)
        try:
            async for answer in stream.answers(requests):
                yield answer
        finally:
            self._streams.discard(stream)
        if stream.stopped:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"{ServerStopping.code}: the server is stopping")

    async def _in_stream(self, data: bytes, call: Call) -> Any:
        self._activity.begin()
        status, failed, answer, request = "CANCELLED", None, None, None
        try:
            with self._memory.held(_COPIES * len(data)):
                request = _read(_InferRequest.FromString, data)
                answer = _StreamResponse(infer_response=await self._infer(request, call))
            if "triton_enable_empty_final_response" in request.parameters:
                answer.infer_response.parameters["triton_final_response"].bool_param = True  # each is its only one
            status = "OK"
        except asyncio.CancelledError:
            raise
        except Exception as error:
            failed = error
            status, text = _told(error)
            answer = _StreamResponse(error_message=text)
            answer.infer_response.id = "" if request is None else request.id
        finally:
            self._activity.end(status, failed, len(data), 0 if answer is None else answer.ByteSize())
        return answer

    def end_streams(self) -> None:
        """End every stream once what it has at work is answered; nothing more is read from it."""
        for stream in self._streams:
            stream.stop()

    # --- what there is -----------------------------------------------------------------------------------------------

    async def _live(self, request: Any, call: Call) -> Any:
        return message("inference.ServerLiveResponse")(live=True)

    async def _ready(self, request: Any, call: Call) -> Any:
        return message("inference.ServerReadyResponse")(ready=bool((await self._health())["ready"]))

    async def _model_ready(self, request: Any, call: Call) -> Any:
        view, _ = await self._view(request)
        ready = model_view.is_ready(view, (await self._health())["states"])
        return message("inference.ModelReadyResponse")(ready=ready)

    async def _check(self, request: Any, call: Call) -> Any:
        if request.service not in ("", SERVICE):  # NOT_FOUND, says the health checking protocol
            raise UnknownModel(f"no service {request.service!r} is here; {SERVICE} is")
        status = 1 if (await self._health())["ready"] else 2  # SERVING, NOT_SERVING
        return message("grpc.health.v1.HealthCheckResponse")(status=status)

    async def _health(self) -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = msgspec.msgpack.decode(await self._link.ask(protocol.Ready, 10.0))
        except InferError:
            found = {"ready": False, "states": {}}
        return found

    async def _view(self, request: Any) -> tuple[ModelView, bool]:
        return await self._service.view(request.name, request.version)

    async def _server(self, request: Any, call: Call) -> Any:
        extensions = ["classification", "model_configuration", "model_repository", "parameters", "schedule_policy"]
        return message("inference.ServerMetadataResponse")(
            name="parallel-infer", version=self._version, extensions=[*extensions, "statistics"]
        )

    async def _metadata(self, request: Any, call: Call) -> Any:
        return message("inference.ModelMetadataResponse")(**model_view.metadata(*await self._view(request)))

    async def _config(self, request: Any, call: Call) -> Any:
        config = model_view.configuration(*await self._view(request))
        return message("inference.ModelConfigResponse")(config=config)

    async def _statistics(self, request: Any, call: Call) -> Any:
        status = msgspec.msgpack.decode(await self._link.ask(protocol.Status))
        if request.name:
            found = [await self._view(request)]
        else:
            found = [(view, False) for view in (await self._link.models()).values()]
        stats = [model_statistics(view, picture, status) for view, picture in found]
        for entry in stats:
            for unused in ("response_stats", "batch_stats", "memory_usage"):
                entry.pop(unused)
        return message("inference.ModelStatisticsResponse")(model_stats=stats)

    # --- the repository ----------------------------------------------------------------------------------------------

    async def _index(self, request: Any, call: Call) -> Any:
        states = (await self._health())["states"]
        rows = model_view.repository_index(await self._link.models(fresh=True), states, request.ready)
        return message("inference.RepositoryIndexResponse")(models=rows)

    async def _load(self, request: Any, call: Call) -> Any:
        _check_manages(call)
        parameters = {name: value.string_param for name, value in request.parameters.items()}
        await self._service.load(request.model_name, parameters)
        return message("inference.RepositoryModelLoadResponse")()

    async def _unload(self, request: Any, call: Call) -> Any:
        _check_manages(call)
        await self._service.unload(request.model_name)
        return message("inference.RepositoryModelUnloadResponse")()


_ASKS = "this server asks for a key: send it as the metadata authorization: Bearer KEY"
_InferRequest = message("inference.ModelInferRequest")
_StreamResponse = message("inference.ModelStreamInferResponse")


def _read(read: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return read(data)
    except DecodeError:
        raise BadInput("the message cannot be read: it is spoilt, or of another type") from None


def _serialised(answer: Any) -> bytes:
    data: bytes = answer.SerializeToString()
    return data


def _check_manages(call: Call) -> None:
    if not call.manages:
        raise Unauthorized(MAY_NOT_MANAGE)
