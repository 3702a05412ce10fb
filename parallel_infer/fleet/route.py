"""The router of a fleet as a child: `parallel-infer route` with the members that the registry names, in a file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from parallel_infer.client.asynchronous import AsyncClient
from parallel_infer.errors import ConfigError
from parallel_infer.files.outputs import write_whole
from parallel_infer.fleet.child import Child
from parallel_infer.process.rundir import socket_directory

_PATIENCE = 5.0  # seconds that a router has to end, and to answer
_BUDGET = 5  # starts in place of one that has ended, within a minute
_MINUTE = 60.0  # seconds
log = logging.getLogger("ray.serve")


class Router:
    """One router. Methods are for one event loop."""

    def __init__(self, route: Mapping[str, Any], host: str) -> None:
        self._route = route
        self._host = host if route["router_host"] == "auto" else str(route["router_host"])
        self._ending = contextlib.ExitStack()
        self._folder = self._ending.enter_context(socket_directory())
        self._file = self._folder / "members"
        self._socket = f"ipc://{self._folder}/router"
        self._client = AsyncClient(self._socket, timeout=_PATIENCE)
        self._child: Child | None = None

    async def start(self, members: Sequence[str]) -> None:
        """Start it and wait until it listens. Raises ConfigError with what it said where it does not get so far."""
        self.tell(members)
        await self._start()

    async def keep(self) -> None:
        """Start it again as often as it ends, `_BUDGET` times a minute at most: clients send again what they wait for.

        Ray would do the same, and take seconds for it.
        """
        starts: list[float] = []
        while self._child is not None and len(starts) < _BUDGET:
            log.warning("the router has ended and is started again: %s", await asyncio.to_thread(self._child.ending))
            now = time.monotonic()
            starts = [*(start for start in starts if now - start < _MINUTE), now]
            self._child.close(0.0)
            await self._start()

    async def _start(self) -> None:
        self._child = Child(self._words())
        if not await asyncio.to_thread(self._child.line):
            why = await asyncio.to_thread(self._child.ending)
            raise ConfigError(f"on the machine {self._host} the router does not start: {why}")

    def tell(self, members: Sequence[str]) -> None:
        """Name its members, one a line; it notices by itself."""
        write_whole(self._file, "".join(f"{address}\n" for address in members).encode())

    async def check(self) -> None:
        """Raises ConfigError where its process has ended, InferError where it does not answer."""
        if self._child is None or not self._child.is_alive:
            raise ConfigError(f"on the machine {self._host} the router has ended")
        await self._client.models()

    async def stop(self) -> None:
        """End it."""
        await self._client.close()
        if self._child is not None:
            self._child.ask_to_end()
            await asyncio.to_thread(self._child.close, _PATIENCE)
        self._ending.close()

    def _words(self) -> list[str]:
        route, host = self._route, f"[{self._host}]" if ":" in self._host else self._host
        words = ["route", "--bind", f"tcp://{host}:{route['port']}", "--bind", self._socket]
        words += ["--members", f"file:{self._file}", "--look-ms", "200", "--json"]
        words += ["--silence-ms", str(route["silence_ms"]), "--most-lost", str(route["most_lost"])]
        for name in ("key", "keys"):
            words += [f"--{name}", str(route[name])] if route.get(name) else []
        words += [
            word for name in ("http", "grpc") for address in route.get(name, ()) for word in (f"--{name}", address)
        ]
        return [*words, "--insecure"] if route.get("insecure") else words
