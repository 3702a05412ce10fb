"""Plain HTTP for curl and scripts: POST a picture, health, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from parallel_infer import protocol
from parallel_infer.client.requests import encode_options
from parallel_infer.doors.gateway_link import Work, option_of
from parallel_infer.doors.http.app import CONTEXT, check_key, client_of, json_response
from parallel_infer.doors.http.bodies import Body, Pieces
from parallel_infer.doors.http.json_text import decoded
from parallel_infer.doors.http.oip_codec import base64_bytes
from parallel_infer.doors.http.pictures import drawn, picture_of_form
from parallel_infer.doors.http.query import NOT_OPTIONS, OPTIONS, check_apart, check_spelling, once_each
from parallel_infer.doors.model_view import ModelView
from parallel_infer.errors import BadInput, InferError
from parallel_infer.protocol import MAX_TIMEOUT


def routes() -> list[web.RouteDef]:
    """POST /infer/NAME and what watches a server; Roboflow's four names below /infer go before."""
    return [
        web.post("/infer/{model}", infer),
        web.get("/healthz", healthz),
        web.get("/readyz", readyz),
        web.get("/metrics", metrics),
    ]


async def infer(request: web.Request) -> web.Response:
    """A picture in, its answer out: as the body, as a form's part, or in JSON as base64."""
    async with request.app[CONTEXT].bodies.pieces(request) as body:
        return await answered(request, request.match_info["model"], body)


async def answered(request: web.Request, name: str, body: Body) -> web.Response:
    """The answer of the model `name` about the picture in the body of a request."""
    context = request.app[CONTEXT]
    with context.bodies.parsing(body.whole() if is_json(request, body) else memoryview(b"")):
        picture, asked, options = _picture(request, body)
        check_apart(asked, options)
    key = options.pop("api_key", None)
    await check_key(request, key if isinstance(key, str) else None)
    view, _ = await context.service.view(name)
    options = {**{k: v for k, v in asked.items() if k not in NOT_OPTIONS}, **options}
    work = Work(
        model=view.name,
        options=encode_options({k: option_of(k, v) for k, v in options.items()}),
        timeout=_timeout(asked.get("timeout")),
        priority=_priority(asked.get("priority")),
        client=client_of(request),
    )
    form = asked.get("format", "json")
    if form not in ("json", "image"):
        raise BadInput(f"format is {form[:40]!r}; json and image are")
    answer = await context.link.picture(work, *picture)
    if form == "json":
        return json_response(answer.to_dict())
    _check_drawable(view)
    jpeg = await asyncio.to_thread(drawn, b"".join(picture), answer)
    return web.Response(body=jpeg, content_type="image/jpeg")


def _check_drawable(view: ModelView) -> None:
    if not view.takes_pictures:
        raise BadInput(f"model {view.name!r} takes no pictures, so nothing can be drawn")


def _picture(request: web.Request, body: Body) -> tuple[Pieces, Mapping[str, str], dict[str, Any]]:
    """The picture, what the query and a form's fields say, and the fields beside it in JSON."""
    if not body.pieces:
        raise BadInput("the body is empty; send a picture, for example with curl --data-binary @street.jpg")
    query = once_each(request.query) if request.query_string else {}
    if request.content_type == "multipart/form-data":
        picture, given_fields = picture_of_form(request.headers.get("Content-Type", ""), body.whole())
        fields = _fields(given_fields)
        key = {"api_key": fields.pop("api_key")} if "api_key" in fields else {}
        check_apart(query, fields)
        return [picture], {**fields, **query}, key
    if not is_json(request, body):
        return body.pieces, query, {}
    given: dict[str, Any] = decoded(body.whole(), dict)
    if "image" not in given:
        raise BadInput('the JSON has no image; send {"image": "BASE64"} with options beside it, or the picture itself')
    return [base64_bytes(given.pop("image"), "image")], query, given


def _fields(given: Mapping[str, str]) -> dict[str, str]:
    """Those of a form's fields that mean something here. Raises BadInput for one that nearly does."""
    check_spelling(given, OPTIONS)
    return {name: value for name, value in given.items() if name in OPTIONS}


def is_json(request: web.Request, body: Body) -> bool:
    """Whether the body is JSON, whatever its type says."""
    return request.content_type == "application/json" or body.starts_with(b"{")


def _timeout(text: str | None) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= MAX_TIMEOUT:
        raise BadInput(f"timeout is {text[:40]!r}; seconds above 0 and up to {MAX_TIMEOUT:g} are taken")
    return seconds


def _priority(text: str | None) -> int:
    if not text:
        return 0
    try:
        priority = int(text)
    except ValueError:
        priority = 1000
    if not -100 <= priority <= 100:
        raise BadInput(f"priority is {text[:40]!r}; a whole number of -100 to 100 is taken, higher goes first")
    return priority


async def healthz(request: web.Request) -> web.Response:
    """The door and the gateway live."""
    await request.app[CONTEXT].link.models(fresh=True)
    return json_response({"live": True})


async def readyz(request: web.Request) -> web.Response:
    """A picture gets through every stage of every model."""
    try:
        health = msgspec.msgpack.decode(await request.app[CONTEXT].link.ask(protocol.Ready, 10.0))
    except InferError as error:
        return json_response({"ready": False, "error": str(error)}, 503)
    return json_response(health, 200 if health["ready"] else 503)


async def metrics(request: web.Request) -> web.Response:
    """The server's metrics in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest  # first used here: most doors are never scraped

    from parallel_infer.observe.metrics import ServerMetrics

    status: Mapping[str, Any] = msgspec.msgpack.decode(await request.app[CONTEXT].link.ask(protocol.Status))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServerMetrics(lambda: status))
    return web.Response(
        body=generate_latest(registry), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )
