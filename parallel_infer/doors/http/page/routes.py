"""The page's routes: its files, which anybody may read, and what it asks for, which takes a key where one is needed."""

from __future__ import annotations

import asyncio
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

import parallel_infer
from parallel_infer.doors.gateway_link import GatewayLink
from parallel_infer.doors.http.app import CONTEXT, check_manages, json_response
from parallel_infer.doors.http.errors import HttpError
from parallel_infer.doors.http.json_text import decoded
from parallel_infer.doors.http.page.feed import Feed
from parallel_infer.doors.http.page.previews import Previews
from parallel_infer.errors import BadInput, Unauthorized
from parallel_infer.protocol import Name

FEED: web.AppKey[Feed] = web.AppKey("feed", Feed)
PREVIEWS: web.AppKey[Previews] = web.AppKey("previews", Previews)
_SLOW = 30.0  # seconds for a page to read one event, before it is given up
_KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
SAMPLES = ("coffee.png", "astronaut.png", "chelsea.png")
_POLICY = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"),
        *("img-src 'self' blob: data:", "media-src 'self' blob:", "base-uri 'none'", "form-action 'none'"),
        *("frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'"),
    )
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
}


class _Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model file of the server's machine, or a chain's steps, and the name to serve it under.

    Without either, the configured one.
    """

    name: Name
    path: str = ""
    steps: str = ""


def routes() -> list[web.RouteDef]:
    """The page, its files, and what it asks for."""
    return [
        web.get("/", index),
        web.get("/page/files/{name}", file),
        web.get("/page/live", live),
        web.get("/page/source", source),
        web.post("/page/load", load),
    ]


def prepare(app: web.Application, link: GatewayLink, viewers: int, side: int) -> None:
    """Give the page what it needs while the door is open; `side` is the longer one of live sources' pictures."""
    feed = app[FEED] = Feed(link, viewers)
    previews = app[PREVIEWS] = Previews(link, side)

    async def close(_: web.Application) -> None:
        feed.close()
        previews.close()

    app.on_shutdown.append(close)


async def index(request: web.Request) -> web.Response:
    """The page itself; it is told whether it has to ask for a key, so that it need not try without one."""
    response = await _file("index.html")
    if request.app[CONTEXT].tokens is not None:
        response.body = bytes(response.body or b"").replace(b"<html ", b'<html data-keys="needed" ', 1)  # type: ignore[arg-type]
    return response


async def file(request: web.Request) -> web.Response:
    """A style sheet, a script or a picture of the page."""
    return await _file(request.match_info["name"])


async def _file(name: str) -> web.Response:
    kind = _KINDS.get(Path(name).suffix)
    found = resources.files(__package__) / "static" / name
    if name in SAMPLES:
        found = resources.files(parallel_infer) / "zoo" / "pictures" / name
    if kind is None or "/" in name or not found.is_file():
        raise web.HTTPNotFound
    return web.Response(
        body=await asyncio.to_thread(found.read_bytes),
        content_type=kind,
        charset="utf-8" if kind.startswith("text/") else None,
        headers=HEADERS,
    )


async def live(request: web.Request) -> web.StreamResponse:
    """The server's state once a second, as server-sent events, until the page is closed or the door stops."""
    _check_own_page(request)
    response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    with request.app[FEED].viewer() as events:
        await response.prepare(request)
        async for event in events:
            async with asyncio.timeout(_SLOW):
                await response.write(event)
    return response


async def source(request: web.Request) -> web.Response:
    """The newest picture of a live source, with its answer: a JPEG, or {"why"} where it cannot be shown.

    204 where there is none newer than `after`. Raises Unauthorized where there are keys, and this one may not manage:
    the pictures are other clients'.
    """
    _check_own_page(request)
    check_manages(request)
    name = request.query.get("name", "")
    if not 0 < len(name) <= 256:
        raise BadInput("name is the name of a live source, of 1 to 256 characters")
    found = request.app[PREVIEWS].of(name)
    if found is None or request.query.get("after") == str(found.number):
        return web.Response(status=204, headers=HEADERS)
    headers = {**HEADERS, "Cache-Control": "no-store", "Picture-Number": str(found.number)}
    if found.why:
        return web.json_response({"why": found.why}, headers=headers)
    return web.Response(body=found.jpeg, content_type="image/jpeg", headers=headers)


async def load(request: web.Request) -> web.Response:
    """Serve a model file of this machine, or a chain; answered with what became of it, once it is served."""
    check_manages(request)
    context = request.app[CONTEXT]
    async with context.bodies.read(request) as body:
        asked = decoded(body, _Load)
    if asked.steps:
        await context.link.load_chain(asked.name, asked.steps)
    elif asked.path:
        await context.link.load(asked.name, asked.path, {})
    else:
        await context.link.reload(asked.name)
    views: Any = await context.link.models(fresh=True)
    return json_response({"name": asked.name, "version": views[asked.name].version if asked.name in views else None})


def _check_own_page(request: web.Request) -> None:
    """A page of another site cannot read the answer, but could keep the server at work. Raises HttpError."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise HttpError(403, "a web page of another site may not use this server", Unauthorized.code)
