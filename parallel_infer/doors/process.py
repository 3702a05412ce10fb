"""Entry points of the doors' processes: an event loop that serves until the parent says that it shall end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from parallel_infer.client.endpoint import Address
from parallel_infer.doors.access import Networks
from parallel_infer.doors.gateway_link import GatewayLink
from parallel_infer.doors.lifetime import Lifetime
from parallel_infer.doors.options import GrpcOptions, HttpOptions, ZmqOptions
from parallel_infer.doors.tokens import Tokens
from parallel_infer.doors.zmq_door import Respond, ZmqDoor
from parallel_infer.errors import ConfigError
from parallel_infer.keys.server import KeyFolder
from parallel_infer.process.child import Child

Serve = Callable[[Lifetime], Coroutine[Any, Any, None]]


def http(child: Child, encoded: bytes) -> None:
    """Entry point of the HTTP door. Raises ConfigError where its libraries are missing or nobody can listen there."""
    options = msgspec.msgpack.decode(encoded, type=HttpOptions)
    try:
        from parallel_infer.doors.http.process import serve
    except ImportError as error:
        raise ConfigError(f"the HTTP door needs {error.name}: pip install 'parallel-infer[http]'") from None
    run_door(child, lambda lifetime: serve(options, _tokens(options.keys), lifetime))


def grpc(child: Child, encoded: bytes) -> None:
    """Entry point of the gRPC door. Raises ConfigError where its libraries are missing or nobody can listen there."""
    options = msgspec.msgpack.decode(encoded, type=GrpcOptions)
    try:
        from parallel_infer.doors.grpc.process import serve
    except ImportError as error:
        raise ConfigError(f"the gRPC door needs {error.name}: pip install 'parallel-infer[grpc]'") from None
    run_door(child, lambda lifetime: serve(options, _tokens(options.keys), lifetime))


def frigate(child: Child, encoded: bytes) -> None:
    """Entry point of the door for Frigate's detector plugin."""
    from parallel_infer.doors.frigate import Frigate
    from parallel_infer.doors.frigate_uploads import UploadLimits, Uploads

    options = msgspec.msgpack.decode(encoded, type=ZmqOptions)
    folder = Path(options.gateway.removeprefix("ipc://")).parent / "uploads"  # of the run, and ends with it

    def make(link: GatewayLink) -> Respond:
        return Frigate(link, Uploads(link, UploadLimits(options.uploads, options.upload_size), folder)).respond

    run_door(child, lambda lifetime: serve_zmq(options, "frigate", make, lifetime))


def imagezmq(child: Child, encoded: bytes) -> None:
    """Entry point of the door for imagezmq's senders."""
    from parallel_infer.doors.imagezmq import ImageZmq

    options = msgspec.msgpack.decode(encoded, type=ZmqOptions)
    make = lambda link: ImageZmq(link, options.model).respond  # noqa: E731 - the same shape as above
    run_door(child, lambda lifetime: serve_zmq(options, "imagezmq", make, lifetime))


async def serve_zmq(options: ZmqOptions, name: str, make: Callable[[GatewayLink], Respond], lifetime: Lifetime) -> None:
    """Serve a ZeroMQ door: `make` gives what answers its requests, from its link to the gateway."""
    link = GatewayLink(Address(options.gateway, None), name, options.timeout)
    # A float32 row is four times its pixels. Whatever is larger than the limit ends its connection without a word, so a
    # model that is somewhat too large must get in, to be refused by name.
    limit = max(options.max_payload * 4, 2 * options.upload_size) + 65536
    respond = make(link)
    networks = Networks(options.networks) if options.networks else None
    doors = [ZmqDoor(address, limit, respond, lifetime.activity, networks) for address in options.bind]
    serving = asyncio.gather(*(door.run(lifetime.stop) for door in doors))
    try:
        await link.reach()
        lifetime.listening([door.address for door in doors])
        await lifetime.stop.wait()
        await link.end()
        await serving
    finally:
        for door in doors:
            door.close()
        link.close()


def run_door(child: Child, serve: Serve) -> None:
    """Serve until the parent says that it shall end, or is gone."""

    async def main() -> None:
        lifetime = Lifetime(child.tell)
        loop = asyncio.get_running_loop()
        orders = child.orders()

        def ordered() -> None:
            if not child.takes_order():
                loop.remove_reader(orders)
                lifetime.stop.set()

        loop.add_reader(orders, ordered)
        await serve(lifetime)

    asyncio.run(main())


def _tokens(folder: str | None) -> Tokens | None:
    return None if folder is None else Tokens(KeyFolder.open(Path(folder)))
