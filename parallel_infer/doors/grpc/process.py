"""The gRPC door's process: grpc's own event-loop server in front of a connection to the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc.aio

from parallel_infer.client.endpoint import Address
from parallel_infer.doors.gateway_link import GatewayLink
from parallel_infer.doors.grpc.servicer import Servicer
from parallel_infer.doors.options import GrpcOptions
from parallel_infer.doors.tokens import Tokens
from parallel_infer.errors import ConfigError

_MOST_STREAMS = 1024  # calls of one connection at a time


async def serve(
    options: GrpcOptions, tokens: Tokens | None, stop: asyncio.Event, ready: Callable[[list[str]], None]
) -> None:
    """Serve until `stop`, then let calls end; `ready` is called with the addresses once the door is open."""
    link = GatewayLink(Address(options.gateway, None), "grpc", options.timeout)
    limit = options.max_payload * 4 + 65536  # a float32 row is four times its pixels
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", _MOST_STREAMS),
            ("grpc.so_reuseport", 0),  # a port that is taken is an error, never shared in silence
        ]
    )
    server.add_generic_rpc_handlers(Servicer(link, tokens, options.version).handlers())
    addresses = []
    for address in options.bind:
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen at {address}: {error}") from None
        addresses.append(f"grpc://{address.rpartition(':')[0]}:{port}")
    await server.start()
    ready(addresses)
    try:
        await stop.wait()
    finally:
        await server.stop(options.timeout)
        link.close()
