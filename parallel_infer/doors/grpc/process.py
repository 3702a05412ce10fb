"""The gRPC door's process: grpc's own event-loop server in front of a connection to the gateway."""

from __future__ import annotations

import asyncio

import grpc.aio

from parallel_infer.client.endpoint import Address
from parallel_infer.doors.gateway_link import GatewayLink
from parallel_infer.doors.grpc.servicer import Servicer
from parallel_infer.doors.lifetime import Lifetime
from parallel_infer.doors.memory import Memory
from parallel_infer.doors.options import GrpcOptions
from parallel_infer.doors.tokens import Tokens
from parallel_infer.errors import ConfigError

_MOST_STREAMS = 1024  # calls of one connection at a time
_ENDING = 2.0  # seconds that calls have to end once the gateway has left


async def serve(options: GrpcOptions, tokens: Tokens | None, lifetime: Lifetime) -> None:
    """Serve until the door is told to end; what waits then is answered, with an error at worst."""
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
    memory = Memory(options.memory, "messages", "grpc_memory_mb")
    servicer = Servicer(link, tokens, options.version, lifetime.activity, memory)
    server.add_generic_rpc_handlers(servicer.handlers())
    addresses = []
    for address in options.bind:
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen at {address}: {error}") from None
        addresses.append(f"grpc://{address.rpartition(':')[0]}:{port}")
    await server.start()
    try:
        await link.reach()
        lifetime.listening(addresses)
        await lifetime.stop.wait()
        stopped = asyncio.ensure_future(server.stop(_ENDING))  # from now on new calls are UNAVAILABLE
        await link.end()
        servicer.end_streams()
        await stopped
    finally:
        await server.stop(None)
        link.close()
