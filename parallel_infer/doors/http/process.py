"""The HTTP door's process: an event loop, a listening socket, a connection to the gateway."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

from aiohttp import web

from parallel_infer.client.endpoint import Address
from parallel_infer.doors.access import WebPages
from parallel_infer.doors.gateway_link import GatewayLink
from parallel_infer.doors.http import oip, plain, roboflow
from parallel_infer.doors.http.app import Context, make_app
from parallel_infer.doors.http.bodies import Bodies
from parallel_infer.doors.http.page import routes as page
from parallel_infer.doors.options import HttpOptions
from parallel_infer.doors.service import InferenceService
from parallel_infer.doors.tokens import Tokens

log = logging.getLogger(__name__)
_HEAD = 30.0  # seconds a connection may stay without a whole request


def application(options: HttpOptions, link: GatewayLink, tokens: Tokens | None) -> web.Application:
    """Everything the door serves."""
    context = Context(
        link,
        InferenceService(link),
        # base64 takes a third more than the picture, and JSON something around it
        Bodies(options.max_payload * 4 // 3 + 65536, options.memory),
        WebPages(address.rpartition(":")[0] for address in options.bind),
        tokens,
    )
    app = make_app(
        context,
        [
            *oip.routes(options.version),
            *roboflow.routes(),
            *plain.routes(),
            *(page.routes() if options.page_viewers else ()),
            *roboflow.version_zero(),
        ],
    )
    page.prepare(app, link, options.page_viewers)
    app[roboflow.ALIASES] = roboflow.Aliases(dict(alias.split("=", 1) for alias in options.aliases))
    app[roboflow.VERSION] = options.version
    app[roboflow.IDENTITY] = str(uuid.uuid4())
    return app


async def serve(options: HttpOptions, tokens: Tokens | None, stop: asyncio.Event, ready: Any) -> None:
    """Serve until `stop`; `ready` is called with the addresses once the door is open."""
    link = GatewayLink(Address(options.gateway, None), "http", options.timeout)
    runner = web.AppRunner(
        application(options, link, tokens),
        access_log=None,
        keepalive_timeout=_HEAD,
        handler_cancellation=True,  # a client that hangs up has its job cancelled
        shutdown_timeout=options.timeout,
    )
    await runner.setup()
    try:
        for address in options.bind:
            host, _, port = address.rpartition(":")
            await web.TCPSite(runner, host.strip("[]"), int(port), backlog=1024).start()
        ready([f"http://{name[0]}:{name[1]}" for name in runner.addresses])
        await stop.wait()
    finally:
        await runner.cleanup()
        link.close()
