"""The HTTP door's application: its routes, and what holds for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import HttpVersion11, web

from parallel_infer.doors.access import MAY_NOT_MANAGE, WebPages, is_of_this_machine
from parallel_infer.doors.gateway_link import GatewayLink
from parallel_infer.doors.http.bodies import Bodies
from parallel_infer.doors.http.errors import HttpError, body_of, headers_of, status_of
from parallel_infer.doors.lifetime import Activity
from parallel_infer.doors.service import InferenceService
from parallel_infer.doors.tokens import Tokens
from parallel_infer.errors import InferError, Unauthorized

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_encode = msgspec.json.Encoder().encode
_JSON = {"Content-Type": "application/json"}  # as a header, which aiohttp does not take apart and put together again


class Context(msgspec.Struct, frozen=True):
    """What handlers share."""

    link: GatewayLink
    service: InferenceService
    bodies: Bodies
    pages: WebPages
    tokens: Tokens | None  # None: no keys are configured
    activity: Activity


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)
CLIENT = "client"  # of a request: whom it comes from, for sharing room among clients
ERROR = "error"  # of a request: the error that it got
HOLDER = "holder"  # of a request: whose key it has shown, where there are keys
_ASKS = "this server asks for a key: send it as Authorization: Bearer KEY"


def make_app(context: Context, routes: list[web.RouteDef]) -> web.Application:
    """The application with these routes."""
    app = web.Application(middlewares=[_entrance], client_max_size=0)
    app[CONTEXT] = context
    app.add_routes([_expecting(route) for route in routes])
    return app


def json_response(value: Any, status: int = 200) -> web.Response:
    """A value as JSON."""
    return web.Response(body=_encode(value), status=status, headers=_JSON)


def _expecting(route: web.RouteDef) -> web.RouteDef:
    """The route, with an answer of our own to `Expect`, which is before all middlewares."""
    return web.RouteDef(route.method, route.path, route.handler, {**route.kwargs, "expect_handler": _expect})


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Whether a client that asks first may send its body: not one that is refused by its length or its encoding."""
    asked = request.headers.get("Expect", "")
    try:
        if asked.lower() != "100-continue":
            raise HttpError(417, f"Expect is {asked[:40]!r}; 100-continue is known")
        request.app[CONTEXT].bodies.check(request)
    except InferError as error:
        request.app[CONTEXT].activity.turn_away(str(status_of(error)), error)
        return _refusal(request, error)
    if request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # no answer has begun
    return None


@web.middleware
async def _entrance(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What holds for every request: who comes in, how errors are told, what is counted.

    One function for all of it, since each middleware costs every request a coroutine.
    """
    context = request.app[CONTEXT]
    activity = context.activity
    status, error, size = "499", None, 0  # what a client that hung up gets in nginx' log
    activity.begin()
    try:
        try:
            if context.tokens is None:
                request[CLIENT] = request.remote or ""
                context.pages.check(request.method, request.headers)
            else:
                await _let_in(request, context.tokens)
            response = await handler(request)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as failure:
            response = _refusal_of(request, failure)
        status, error, size = str(response.status), request.get(ERROR), response.content_length or 0
        return response
    finally:
        activity.end(status, error, request.content.total_bytes, size)


def _refusal_of(request: web.Request, failure: Exception) -> web.Response:
    if isinstance(failure, InferError):
        return _refusal(request, failure)
    if isinstance(failure, web.HTTPNotFound):
        return _refusal(request, HttpError(404, f"there is nothing at {request.path[:200]!r}", "UNKNOWN_ROUTE"))
    if isinstance(failure, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(failure.allowed_methods))
        text = f"{request.method} is not possible at {request.path[:200]!r}; {allowed} is"
        response = _refusal(request, HttpError(405, text))
        response.headers["Allow"] = allowed
        return response
    if isinstance(failure, web.HTTPException):
        return _refusal(request, HttpError(failure.status, failure.reason))
    log.error("a request failed", exc_info=failure)
    return _refusal(request, InferError("the server failed at this request; its log has more"))


def _refusal(request: web.Request, error: InferError) -> web.Response:
    request[ERROR] = error
    status = status_of(error)
    response = web.Response(
        body=body_of(error), status=status, content_type="application/json", headers=headers_of(status)
    )
    if not request.content.at_eof():
        response.force_close()  # what is left of its body is not read
    return response


async def _let_in(request: web.Request, tokens: Tokens) -> None:
    """Whoever has a token, or may show it later. Raises HttpError (401)."""
    request[CLIENT] = request.remote or ""
    if _is_open(request.path):
        return
    holder = await tokens.holder(_token_of(request))
    if holder is not None:
        request[HOLDER], request[CLIENT] = holder, holder.name
    elif not (_may_carry_its_key_in_the_body(request) or _asks_without_a_key(request)):
        raise HttpError(401, _ASKS, Unauthorized.code)


def _is_open(path: str) -> bool:
    """Whether a path needs no key: health, and the page's own files, which hold nothing of this server."""
    return path in ("/healthz", "/readyz", "/") or path.startswith("/page/files/")


def _token_of(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return request.query.get("api_key", "")


def _may_carry_its_key_in_the_body(request: web.Request) -> bool:
    """Roboflow's clients put `api_key` into the JSON of a POST; that handler looks itself."""
    return request.method == "POST" and request.path.startswith(("/infer/", "/model/"))


def _asks_without_a_key(request: web.Request) -> bool:
    """What Roboflow's clients ask without the key that they have, and show later.

    All of them ask so what the server is, those before 1.0 also which models there are.
    """
    keyless = "Authorization" not in request.headers and "api_key" not in request.query
    return keyless and request.method in ("GET", "HEAD") and request.path in ("/info", "/model/registry")


def is_known(request: web.Request) -> bool:
    """Whether a request comes from somebody who has a key, or none is needed."""
    return request.app[CONTEXT].tokens is None or HOLDER in request


def client_of(request: web.Request) -> str:
    """Whom a request comes from."""
    client: str = request[CLIENT]
    return client


async def check_key(request: web.Request, key: str | None) -> None:
    """Let a request in by the key in its body, where its headers and query had none. Raises HttpError (401)."""
    tokens = request.app[CONTEXT].tokens
    if tokens is None or HOLDER in request:
        return
    holder = await tokens.holder(key or "")
    if holder is None:
        raise HttpError(401, _ASKS, Unauthorized.code)
    request[HOLDER], request[CLIENT] = holder, holder.name


def check_manages(request: web.Request) -> None:
    """Raises Unauthorized unless the request may load and unload models."""
    holder = request.get(HOLDER)
    unasked = request.app[CONTEXT].tokens is None and is_of_this_machine(request.remote or "")
    if not (holder.manages if holder is not None else unasked):
        raise Unauthorized(MAY_NOT_MANAGE)
