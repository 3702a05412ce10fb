"""The connections of a router to its members, by route: names are looked up, and reasons found out, beside the loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from parallel_infer.client.endpoint import Address
from parallel_infer.client.reachability import reason_for
from parallel_infer.ipc.aside import Aside
from parallel_infer.ipc.member_socket import MemberSocket
from parallel_infer.keys.client import Key
from parallel_infer.protocol import Request
from parallel_infer.router.sources import endpoint_of

_ASIDE = 1.0  # seconds for name servers at the end
_encode = msgspec.msgpack.Encoder().encode


class MemberLinks:
    """The core's connections to members. Names are looked up beside the loop, which goes on meanwhile."""

    def __init__(self, socket: MemberSocket, key: Key | None) -> None:
        self._socket = socket
        self._key = key
        self.names: Aside[str | OSError] = Aside()
        self.reasons: Aside[str] = Aside()
        self._endpoints: dict[str, bytes] = {}  # to the route that leads there
        self._routes: dict[bytes, str] = {}
        self._wanted: dict[bytes, list[tuple[Request, Any]]] = {}  # sent before the name was found
        self._addresses: dict[bytes, str] = {}
        self.ended: Callable[[bytes, str], None] = lambda route, why: None

    def open(self, address: str, route: bytes) -> None:
        """Begin to connect; what is sent meanwhile waits."""
        self._wanted[route] = []
        self._addresses[route] = address

        def resolve() -> str | OSError:
            try:
                return endpoint_of(address)
            except OSError as error:
                return error

        self.names.ask(resolve, lambda found: self._connect(route, found))

    def _connect(self, route: bytes, endpoint: str | OSError) -> None:
        waiting = self._wanted.pop(route, None)
        if waiting is None:
            return  # closed meanwhile
        if isinstance(endpoint, OSError):
            self.ended(route, f"its name does not resolve ({endpoint.strerror or endpoint})")
            return
        if endpoint in self._endpoints:
            self.ended(route, f"another member is connected at {endpoint} already")
            return
        try:
            self._socket.connect(endpoint, route)
        except OSError as error:
            self.ended(route, f"its address cannot be used ({error.strerror})")
            return
        self._endpoints[endpoint], self._routes[route] = route, endpoint
        for request, payload in waiting:
            self.send(route, request, payload)

    def close(self, route: bytes) -> None:
        """End a connection at once."""
        self._wanted.pop(route, None)
        self._addresses.pop(route, None)
        endpoint = self._routes.pop(route, None)
        if endpoint is not None:
            del self._endpoints[endpoint]
            self._socket.disconnect(endpoint)

    def send(self, route: bytes, request: Request, payload: Any = None) -> None:
        """Send a request."""
        if route in self._wanted:
            self._wanted[route].append((request, payload))
        else:
            self._socket.send(route, _encode(request), payload)

    def take_ends(self) -> None:
        """Tell of connections that have ended; of one that never came about, why, once that is found out."""
        for endpoint, why in self._socket.ends():
            route = self._endpoints.get(endpoint)
            if route is None:
                continue
            if why:
                self.ended(route, why)
                continue
            address = Address(self._addresses[route], self._key)
            self.close(route)
            self.reasons.ask(partial(reason_for, address), partial(self.ended, route))

    def end(self) -> None:
        """Close everything."""
        self.names.close(_ASIDE)
        self.reasons.close(_ASIDE)
        self._socket.close()
