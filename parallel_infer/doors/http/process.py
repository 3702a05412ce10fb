"""The HTTP door's process: an event loop, listening sockets, a connection to the gateway."""

from __future__ import annotations

import asyncio
import uuid

from aiohttp import web

from parallel_infer.client.endpoint import Address
from parallel_infer.doors.access import WebPages
from parallel_infer.doors.gateway_link import GatewayLink
from parallel_infer.doors.http import oip, plain, roboflow
from parallel_infer.doors.http.app import Context, make_app
from parallel_infer.doors.http.bodies import Bodies
from parallel_infer.doors.http.connections import Limits, connection_factory
from parallel_infer.doors.http.page import routes as page
from parallel_infer.doors.http.reference import routes as reference
from parallel_infer.doors.lifetime import Lifetime
from parallel_infer.doors.options import HttpOptions
from parallel_infer.doors.service import InferenceService
from parallel_infer.doors.tokens import Tokens
from parallel_infer.errors import ConfigError
from parallel_infer.machine import descriptors

_BACKLOG = 1024  # connections that the kernel keeps until they are accepted
_ENDING = 1.0  # seconds that the last answers have to be sent


def application(options: HttpOptions, link: GatewayLink, tokens: Tokens | None, lifetime: Lifetime) -> web.Application:
    """Everything the door serves."""
    context = Context(
        link,
        InferenceService(link),
        # base64 takes a third more than the picture, and JSON something around it
        Bodies(options.max_payload * 4 // 3 + 65536, options.memory, options.silence),
        WebPages((address.rpartition(":")[0] for address in options.bind), options.hosts),
        tokens,
        lifetime.activity,
    )
    app = make_app(
        context,
        [
            *oip.routes(options.version),
            *roboflow.routes(),
            *plain.routes(),
            *reference.routes(options.version, keys=tokens is not None),
            *(page.routes() if options.page_viewers else ()),
            *roboflow.version_zero(),
        ],
    )
    page.prepare(app, link, options.page_viewers, options.page_picture)
    app[roboflow.ALIASES] = roboflow.Aliases(dict(alias.split("=", 1) for alias in options.aliases))
    app[roboflow.VERSION] = options.version
    app[roboflow.IDENTITY] = str(uuid.uuid4())
    return app


async def serve(options: HttpOptions, tokens: Tokens | None, lifetime: Lifetime) -> None:
    """Serve until the door is told to end; what waits then is answered, with an error at worst."""
    link = GatewayLink(Address(options.gateway, None), "http", options.timeout)
    runner = web.AppRunner(
        application(options, link, tokens, lifetime),
        handler_cancellation=True,  # a client that hangs up has its job cancelled
        shutdown_timeout=_ENDING,
    )
    await runner.setup()
    assert runner.server is not None
    room = max(1, descriptors.raise_limit() - descriptors.RESERVE - descriptors.open_now())
    limits = Limits(options.idle, options.silence, min(options.connections, room), lifetime.activity)
    listeners = []
    try:
        for address in options.bind:
            listeners.append(await _listen(address, runner.server, limits))
        await link.reach()
        lifetime.listening([_url(*socket.getsockname()[:2]) for each in listeners for socket in each.sockets])
        await lifetime.stop.wait()
        for listener in listeners:
            listener.close()
        await link.end()
    finally:
        await runner.cleanup()
        link.close()


async def _listen(address: str, server: web.Server, limits: Limits) -> asyncio.Server:
    host, _, port = address.rpartition(":")
    factory = connection_factory(server, limits)
    try:
        return await asyncio.get_running_loop().create_server(
            factory, host.strip("[]"), int(port), backlog=_BACKLOG, reuse_address=True
        )
    except OSError as error:
        raise ConfigError(f"cannot listen at {address}: {error.strerror or error}") from None


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
