"""Open Inference Protocol v2 over HTTP, as KServe, Triton and their clients speak it."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from parallel_infer import protocol
from parallel_infer.doors import model_view
from parallel_infer.doors.http.app import CONTEXT, check_manages, client_of, json_response
from parallel_infer.doors.http.json_text import decoded
from parallel_infer.doors.http.oip_codec import (
    LENGTH_HEADER,
    json_length,
    read_request,
    read_single,
    write_response,
)
from parallel_infer.doors.http.query import OPTIONS, once_each
from parallel_infer.doors.model_view import ModelView
from parallel_infer.doors.statistics import model_statistics
from parallel_infer.errors import BadInput, InferError

_EXTENSIONS = [
    *("binary_tensor_data", "classification", "model_configuration", "model_repository", "parameters"),
    *("schedule_policy", "statistics"),
]
_COMPRESS_FROM = 1024  # bytes
_LONG_JSON = 1 << 18  # bytes; longer JSON is read beside the event loop, which others wait for
NAME = "parallel-infer"


def routes(version: str) -> list[web.RouteDef]:
    """Everything below /v2; `version` is the server's."""

    async def server(request: web.Request) -> web.Response:
        return json_response({"name": NAME, "version": version, "extensions": _EXTENSIONS})

    found = [
        web.get("/v2", server),
        web.get("/v2/", server),
        web.get("/v2/health/live", live),
        web.get("/v2/health/ready", ready),
        web.get("/v2/models/stats", all_statistics),
        web.post("/v2/repository/index", index),
        web.post("/v2/repository/models/{model}/load", load),
        web.post("/v2/repository/models/{model}/unload", unload),
    ]
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        found += [
            web.post(f"{path}/infer", infer),  # first, because routes are tried in their order
            web.get(path, metadata),
            web.get(f"{path}/ready", model_ready),
            web.get(f"{path}/config", configuration),
            web.get(f"{path}/stats", statistics),
        ]
    return found


async def live(request: web.Request) -> web.Response:
    """Whether the door lives."""
    return json_response({"live": True})


async def ready(request: web.Request) -> web.Response:
    """Whether a picture gets through every stage of every model."""
    health = await _health(request)
    return json_response({"ready": bool(health["ready"])}, 200 if health["ready"] else 503)


async def _health(request: web.Request) -> Any:
    try:
        return msgspec.msgpack.decode(await request.app[CONTEXT].link.ask(protocol.Ready, 10.0))
    except InferError as error:
        return {"ready": False, "models": {}, "states": {}, "why": str(error)}


async def _view(request: web.Request) -> tuple[ModelView, bool]:
    service = request.app[CONTEXT].service
    return await service.view(request.match_info["model"], request.match_info.get("version", ""))


async def model_ready(request: web.Request) -> web.Response:
    """Whether a picture gets through every stage of this model."""
    view, _ = await _view(request)
    states = (await _health(request))["states"]
    is_ready = model_view.is_ready(view, states)
    return json_response({"name": request.match_info["model"], "ready": is_ready}, 200 if is_ready else 400)


async def metadata(request: web.Request) -> web.Response:
    """Inputs and outputs of a model."""
    return json_response(model_view.metadata(*await _view(request)))


async def configuration(request: web.Request) -> web.Response:
    """A model's configuration in Triton's words."""
    return json_response(model_view.configuration(*await _view(request)))


async def statistics(request: web.Request) -> web.Response:
    """Counters of one model."""
    view, picture = await _view(request)
    return json_response({"model_stats": [model_statistics(view, picture, await _status(request))]})


async def all_statistics(request: web.Request) -> web.Response:
    """Counters of every model."""
    status = await _status(request)
    models = await request.app[CONTEXT].link.models()
    return json_response({"model_stats": [model_statistics(view, False, status) for view in models.values()]})


async def _status(request: web.Request) -> Any:
    return msgspec.msgpack.decode(await request.app[CONTEXT].link.ask(protocol.Status))


async def infer(request: web.Request) -> web.Response:
    """Inference; see `oip_codec` for the bodies."""
    context = request.app[CONTEXT]
    name, version = request.match_info["model"], request.match_info.get("version", "")
    if request.query_string:
        _check_query(request)
    async with context.bodies.read(request) as body:
        header = request.headers.get(LENGTH_HEADER)
        if header is not None and header.strip() == "0":
            view, picture = await context.service.view(name, version)
            inputs = view.served(picture)[0]
            if len(inputs) != 1:
                raise BadInput(f"{LENGTH_HEADER} is 0, but the model has {len(inputs)} inputs; name them in JSON")
            port = inputs[0]
            parsed, binary = read_single(
                name, version, client_of(request), body, (port.name, port.datatype, port.shape)
            )
        else:
            json = body[: json_length(header, len(body))]
            with context.bodies.parsing(json):
                known = name, version, client_of(request), body, json
                if len(json) > _LONG_JSON:
                    parsed, binary = await asyncio.to_thread(read_request, *known)
                else:
                    parsed, binary = read_request(*known)
        response = await context.service.infer(parsed)
    return _packed(request, *write_response(response, binary))


def _check_query(request: web.Request) -> None:
    """Raises BadInput for options that would stand in the query of a plain request: here nobody reads them there."""
    for name in once_each(request.query):
        if name != "api_key" and name in OPTIONS:
            raise BadInput(f"{name!r} is in the query, which is not read here; put it into the JSON's parameters")


def _packed(request: web.Request, parts: Sequence[bytes | memoryview], length: int | None) -> web.Response:
    """The answer, compressed where the client would have it so; the header counts the uncompressed JSON."""
    if length is None:
        headers = {"Content-Type": "application/json"}
    else:
        headers = {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(length)}
    body: bytes | memoryview = parts[0] if len(parts) == 1 else b"".join(parts)
    # Only where nothing else is offered: most clients offer gzip always, and compressing tensors costs more than
    # sending them on one machine.
    accepted = request.headers.get("Accept-Encoding", "").strip().lower()
    if accepted == "gzip" and len(body) >= _COMPRESS_FROM:
        body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
    elif accepted == "deflate" and len(body) >= _COMPRESS_FROM:
        body, headers["Content-Encoding"] = zlib.compress(body, 1), "deflate"
    return web.Response(body=body, headers=headers)


async def index(request: web.Request) -> web.Response:
    """What is there, and whether it is served; {"ready": true} leaves out what is not."""
    context = request.app[CONTEXT]
    async with context.bodies.read(request) as body:
        asked = _repository(body)
    states = (await _health(request))["states"]
    return json_response(model_view.repository_index(await context.link.models(fresh=True), states, asked.ready))


async def load(request: web.Request) -> web.Response:
    """Load a configured file anew, or a chain; 200 when it is served."""
    check_manages(request)
    context = request.app[CONTEXT]
    async with context.bodies.read(request) as body:
        parameters = _repository(body).parameters
    await context.service.load(request.match_info["model"], parameters)
    return json_response({})


async def unload(request: web.Request) -> web.Response:
    """Stop serving a model; 200 when its last job is answered."""
    check_manages(request)
    context = request.app[CONTEXT]
    async with context.bodies.read(request) as body:
        _repository(body)
    await context.service.unload(request.match_info["model"])
    return json_response({})


class _Repository(msgspec.Struct, frozen=True):
    parameters: dict[str, Any] = {}
    ready: bool = False


def _repository(body: memoryview) -> _Repository:
    if not len(body):
        return _Repository()
    return decoded(body, _Repository)
