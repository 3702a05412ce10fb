"""What Ray Serve runs: the builders of a fleet's two applications, their replicas, and the registry between them.

A replica on each machine holds a server as its child and says to the registry, once a second, that it is there. The
replica of the router holds `parallel-infer route` and writes down for it whom the registry names. No job comes by here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from typing import Any

import ray
from ray import serve

from parallel_infer.errors import ConfigError
from parallel_infer.fleet.members import BEAT, Members
from parallel_infer.fleet.node import Server
from parallel_infer.fleet.route import Router
from parallel_infer.fleet.scaling import PENDING
from parallel_infer.fleet.serve_file import HEAD

_NAMESPACE = "parallel-infer"
_WATCH = 10.0  # seconds after which a router asks anew, to see that the registry lives
_AGAIN = 0.3  # seconds until a router looks for a registry again
_NEWS = 2 * BEAT  # seconds in which routers have heard that a node leaves
_A_LITTLE = 0.001
log = logging.getLogger("ray.serve")


def nodes(args: dict[str, Any]) -> Any:
    """The application of the servers."""
    return serve.deployment(Node, name="node").bind(args)


def router(args: dict[str, Any]) -> Any:
    """The application of the router on the head."""
    return serve.deployment(RouterReplica, name="router").bind(args)


class Registry:
    """The actor that knows a fleet's members. It keeps nothing: nodes tell a new one within a beat."""

    def __init__(self) -> None:
        self._members = Members(time.monotonic())
        self._changed = asyncio.Event()

    async def beat(self, name: str, address: str) -> None:
        """A node is there."""
        self._members.beat(name, address, time.monotonic())
        self._tell()

    async def leave(self, name: str) -> bool:
        """A node is going to end. Returns whether it was the last."""
        self._members.leave(name)
        self._tell()
        return self._members.is_empty

    async def watch(self, version: int, knows: bool) -> tuple[int, list[str]]:
        """The version and the addresses of all servers, as soon as they are not those of `version`.

        Whoever knows some already gets them when everybody has had time to say that they are there.
        """
        if knows:
            await asyncio.sleep(self._members.settles_in(time.monotonic()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WATCH):
                while self._members.version == version:
                    await self._changed.wait()
        self._members.forget_silent(time.monotonic())
        return self._members.version, self._members.addresses()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Node:
    """A replica: one server on its machine, and a router beside it where every machine has one."""

    def __init__(self, args: dict[str, Any]) -> None:
        self._args = args
        self._host = ray.util.get_node_ip_address()
        self._name = f"{self._host} {uuid.uuid4().hex}"
        self._server: Server | None = None
        self._routing: Routing | None = None
        self._beats: asyncio.Task[None] | None = None
        self._registry: Any = None

    async def reconfigure(self, wanted: dict[str, Any]) -> None:
        """Start the server with these models; later carry out what has changed of them."""
        models = wanted["models"]
        if self._server is not None:
            await self._server.change_models(models)
            return
        server = Server(self._args["server"], models, self._host, self._args["member_port"])
        try:
            await server.start()
        except BaseException:
            await server.stop()
            raise
        self._server = server
        await self._beat(server)  # once, so that routers know it when it counts as started
        self._beats = asyncio.create_task(self._keep_beating(server))
        if "route" in self._args:
            self._routing = Routing(self._args["fleet"], self._args["route"], self._host)
            await self._routing.start()

    async def check_health(self) -> None:
        """Serve replaces this replica where it raises."""
        if self._server is None or not self._server.is_alive:
            raise ConfigError(f"on the machine {self._host} the server has ended")
        await self._server.check()
        if self._routing is not None:
            await self._routing.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What the number of nodes is decided by."""
        return {PENDING: 0.0 if self._server is None else await self._server.pending()}

    async def __del__(self) -> None:
        """Serve's way to say that it is time to go: no new jobs, then those that are there, then the end."""
        if self._server is None:
            return
        if self._beats is not None:
            self._beats.cancel()
        await self._leave()
        await asyncio.sleep(_NEWS)
        if self._routing is not None:
            await self._routing.stop()
        await self._server.stop()

    async def _keep_beating(self, server: Server) -> None:
        while server.is_alive:
            await asyncio.sleep(BEAT)
            await self._beat(server)

    async def _beat(self, server: Server) -> None:
        try:
            if self._registry is None:
                self._registry = await asyncio.to_thread(_registry, self._args["fleet"])
            await asyncio.wait_for(self._registry.beat.remote(self._name, server.address), 10 * BEAT)
        except Exception as error:  # Ray's errors have no common base; another registry takes over
            log.warning("the registry of the fleet does not answer: %s", error)
            self._registry = None

    async def _leave(self) -> None:
        with contextlib.suppress(Exception):
            if await asyncio.wait_for(self._registry.leave.remote(self._name), 5 * BEAT):
                ray.kill(self._registry)  # it was the last; who comes next makes a new one


class RouterReplica:
    """A replica: the router on the head."""

    def __init__(self, args: dict[str, Any]) -> None:
        self._args = args
        self._routing: Routing | None = None

    async def reconfigure(self, _: dict[str, Any]) -> None:
        """Start the router: a replica counts as started when this returns."""
        if self._routing is None:
            routing = Routing(self._args["fleet"], self._args["route"], ray.util.get_node_ip_address())
            await routing.start()
            self._routing = routing

    async def check_health(self) -> None:
        """Serve replaces this replica where it raises."""
        if self._routing is not None:
            await self._routing.check()

    async def __del__(self) -> None:
        """Serve's way to say that it is time to go."""
        if self._routing is not None:
            await self._routing.stop()


class Routing:
    """A router, and the task that tells it whom the registry names."""

    def __init__(self, fleet: str, route: dict[str, Any], host: str) -> None:
        self._fleet = fleet
        self._router = Router(route, host)
        self._version, self._members = -1, list[str]()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the router, with those who are there already."""
        await self._ask()
        try:
            await self._router.start(self._members)
        except BaseException:
            await self._router.stop()
            raise
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._router.keep())]

    async def check(self) -> None:
        """Raises where the router is not well."""
        await self._router.check()

    async def stop(self) -> None:
        """End the router."""
        for task in self._tasks:
            task.cancel()
        await self._router.stop()

    async def _follow(self) -> None:
        while True:
            before = self._members
            if not await self._ask():
                await asyncio.sleep(_AGAIN)
            elif self._members != before:
                self._router.tell(self._members)

    async def _ask(self) -> bool:
        """Hear of the members; where there is no registry, those of before count."""
        try:
            registry = await asyncio.to_thread(ray.get_actor, _name(self._fleet), _NAMESPACE)
            found = await asyncio.wait_for(registry.watch.remote(self._version, bool(self._members)), 2 * _WATCH)
        except Exception as error:  # Ray's errors have no common base
            log.warning("no registry of the fleet %s tells who is there: %s", self._fleet, error)
            self._version = -1
            return False
        self._version, self._members = found
        return True


def _registry(fleet: str) -> Any:
    """The registry of a fleet, made where there is none."""
    options = {"name": _name(fleet), "namespace": _NAMESPACE, "get_if_exists": True, "lifetime": "detached"}
    place = {"num_cpus": 0, "resources": {HEAD: _A_LITTLE}, "max_concurrency": 10_000}
    return ray.remote(Registry).options(**options, **place).remote()


def _name(fleet: str) -> str:
    return f"fleet {fleet}"
