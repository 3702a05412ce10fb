"""GET /openapi.json and GET /docs."""

from __future__ import annotations

import msgspec
from aiohttp import web

from parallel_infer.doors.http.reference.document import document
from parallel_infer.doors.http.reference.page import HEADERS, page


def routes(version: str, *, keys: bool) -> list[web.RouteDef]:
    """Both routes; `version` is the server's, `keys` whether it asks for keys."""
    described = document(version, keys=keys)
    as_json = msgspec.json.encode(described)
    as_page = page(described)

    async def openapi(request: web.Request) -> web.Response:
        return web.Response(body=as_json, content_type="application/json")

    async def docs(request: web.Request) -> web.Response:
        return web.Response(text=as_page, content_type="text/html", headers=HEADERS)

    return [web.get("/openapi.json", openapi), web.get("/docs", docs)]
