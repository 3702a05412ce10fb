"""The gateway's public addresses: who comes in, what clients send there, and how their connections end."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from parallel_infer.errors import ConfigError, InferError
from parallel_infer.gateway.access import AccessControl
from parallel_infer.gateway.handover import Handover
from parallel_infer.gateway.requests import read_request
from parallel_infer.ipc.channel import Context, Watch
from parallel_infer.ipc.client_socket import ClientSocket, ReplyAddress, ZapAuthenticator
from parallel_infer.protocol import Hello, Load, LoadChain, Reload, Request, Stop, Unload

_MANAGING = frozenset({Load, LoadChain, Reload, Unload, Stop})


class DoorTerms(Protocol):
    """Where clients come in, and who."""

    @property
    def bind(self) -> tuple[str, ...]: ...
    @property
    def inside(self) -> str: ...
    @property
    def keys(self) -> str | None: ...
    @property
    def max_clients(self) -> int: ...
    @property
    def max_message(self) -> int: ...


class Asked(Protocol):
    """What takes the requests: a gateway's core, or a router's."""

    def request(self, request: Request, requester: ReplyAddress, payload: Any = None) -> None:
        """Do what a client asks for; `payload` is a memoryview of a frame."""

    def refuse(self, requester: ReplyAddress, error: InferError) -> None:
        """Reply to what is no request, or to one that its sender may not make."""


class PublicDoors:
    """One ClientSocket for each address. Nobody is let in before `open`."""

    def __init__(self, context: Context, options: DoorTerms, watch: Watch) -> None:
        self._context = context
        self._options = options
        self._watch = watch
        self._access = AccessControl(options.keys, options.max_clients)
        self._authenticator = ZapAuthenticator(context, self._access.authenticate)
        self._sockets: dict[Any, ClientSocket] = {}
        self._monitors: dict[Any, ClientSocket] = {}
        self._told: tuple[str, str, str] | None = None  # what clients are told of a stop
        watch.add(self._authenticator.socket, rare=True)
        watch.add(self._access.descriptor, rare=True)

    def open(self) -> tuple[str, ...]:
        """Let clients in; the addresses that are told to them, none where they are open already.

        Raises ConfigError where an address cannot be had.
        """
        if self._sockets:  # what was meant for a predecessor reaches us as well
            return ()
        inside = self._options.inside
        try:
            for address in (*self._options.bind, *([inside] if inside else ())):
                make_socket = partial(ClientSocket, self._context, address, self._options.max_message)
                door = self._access.open(address, make_socket)
                door.inside = address == inside
                self._sockets[door.socket] = self._monitors[door.monitor] = door
                self._watch.add(door.socket)
                self._watch.add(door.monitor, rare=True)
        except (OSError, ConfigError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"cannot listen at {address}: {reason}") from None
        return tuple(door.address for door in self._sockets.values() if door.address != inside)

    def take_in(self, there: set[Any], core: Asked) -> None:
        """Give the core what clients have sent, as far as `there` says that there is something."""
        for socket, door in self._sockets.items():
            if socket in there:
                self._take_requests(door, core)
        if self._authenticator.socket in there:
            self._authenticator.answer()
        if self._access.descriptor in there:
            self._access.take_in()
        for socket in there & self._monitors.keys():
            self._monitors[socket].connections()

    def take_rest(self, core: Asked) -> None:
        """Give the core what clients have sent, whatever there is."""
        for door in self._sockets.values():
            self._take_requests(door, core)

    def settle(self) -> None:
        """Take no more connections in; who waits for a key to be looked up is told."""
        self._access.settle()

    def _take_requests(self, door: ClientSocket, core: Asked) -> None:
        for frames in door.drain():
            enveloped = 1 if len(frames) > 2 and not len(frames[1]) else 0
            requester = ReplyAddress(door, frames[0].bytes, enveloped)
            if len(frames) == 2 and not len(frames[1]):  # ZMQ_PROBE_ROUTER
                self._greet(requester, frames[-1])
                continue
            try:
                request = read_request(frames[1 + enveloped :], requester)
            except InferError as error:
                core.refuse(requester, error)
                continue
            if type(request) in _MANAGING:
                go_on = partial(core.request, request, requester)
                self._access.when_manages(door, frames[-1], go_on, partial(core.refuse, requester))
                continue
            if type(request) is Hello and not enveloped:
                self._greet(ReplyAddress(door, requester.client), frames[-1])
            core.request(request, requester, frames[-1].buffer if len(frames) > 2 + enveloped else None)

    def _greet(self, client: ReplyAddress, frame: Any) -> None:
        """A client that wants to be told of a stop."""
        client.door.enlist(client.client, frame)
        if self._told is not None:
            client.error(*self._told)

    def tell(self, error: tuple[str, str, str]) -> None:
        """Send an error (code, text, reason) to each client that wants to know of a stop, and to those that come."""
        self._told = error
        for door in self._sockets.values():
            door.tell(*error)

    def has_strangers(self) -> bool:
        """Whether there are clients that `tell` does not reach."""
        return any(door.has_strangers for door in self._sockets.values())

    def is_read(self) -> bool:
        """Whether every client has taken what was sent to it."""
        return all(door.is_read for door in self._sockets.values())

    def status(self) -> dict[str, Any]:
        """Connections that were cut on account of what they sent, and replies that nobody took."""
        doors = self._sockets.values()
        return {"cut": sum(door.cut for door in doors), "unread": sum(door.unread for door in doors)}

    def close(self, until: float) -> Handover:
        """Let nobody in any more; what was sent has until `until` to leave. Returns the connections there are."""
        handover = Handover(descriptor for door in self._sockets.values() for descriptor in door.descriptors())
        for door in self._sockets.values():
            door.close(until)
        self._authenticator.close()
        return handover

    def release(self) -> None:
        """Give the addresses up, once everything is closed."""
        self._access.close()
