"""The server of one machine: its configuration file, its process, the models that it is told of later."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parallel_infer.client.asynchronous import AsyncClient
from parallel_infer.config.fields import toml_key, toml_value
from parallel_infer.errors import ConfigError
from parallel_infer.fleet.child import Child
from parallel_infer.model_files.location import find_model
from parallel_infer.process.rundir import socket_directory

_GRACE = 2.0  # seconds beside drain_timeout_ms until a server that stops is killed
_DRAIN = 10_000.0  # ms, the server's default
_LOOK = 5.0  # seconds until a server that says nothing counts as not well

Models = Mapping[str, Mapping[str, Any]]


def server_toml(server: Mapping[str, Any], models: Models) -> str:
    """The configuration file of a server."""
    tables = {**server.get("models", {}), **models}
    top = {name: value for name, value in server.items() if name != "models"}
    return "\n".join(["\n".join(_lines(top)), *("\n".join(_table(*item)) for item in tables.items())]) + "\n"


def changes(old: Models, new: Models) -> tuple[list[str], list[str]]:
    """Which models have to be unloaded, and which loaded, to get from one set to the other."""
    return [name for name in old if name not in new], [name for name in new if old.get(name) != new[name]]


def check_files(models: Models, machine: str) -> None:
    """Raises ConfigError that names every model whose file this machine does not have."""
    wrong = []
    for name, model in models.items():
        try:
            find_model(str(model["path"]), Path("/"))
        except ConfigError as error:
            wrong.append(f"model {name}: {error}")
    if wrong:
        raise ConfigError(
            f"on the machine {machine}: {'; '.join(wrong)}. Every machine of the fleet needs the models at the same "
            "path: copy them there, mount a folder of all, or change path of [models.NAME]"
        )


class Server:
    """One server as a child. Methods are for one event loop."""

    def __init__(self, settings: Mapping[str, Any], models: Models, host: str, port: int) -> None:
        self._settings, self._host, self._port = settings, host, port
        self._models = models
        self._ending = contextlib.ExitStack()
        self._folder = self._ending.enter_context(socket_directory())
        self._socket = f"ipc://{self._folder}/server"
        self.address = ""
        self._child: Child | None = None
        self._client = AsyncClient(self._socket, timeout=_LOOK)

    async def start(self) -> None:
        """Start it and wait until it is ready. Raises ConfigError with what it said where it does not get so far."""
        check_files(self._models, self._host)
        file = self._folder / "server.toml"
        file.write_text(server_toml(self._settings, self._models), "utf-8")
        host = f"[{self._host}]" if ":" in self._host else self._host
        binds = ["--bind", f"tcp://{host}:{self._port}", "--bind", self._socket]
        self._child = Child(["serve", "--config", str(file), *binds, "--json"])
        line = await asyncio.to_thread(self._child.line)
        if not line:
            why = await asyncio.to_thread(self._child.ending)
            raise ConfigError(f"on the machine {self._host} the server does not start: {why}")
        self.address = next(address for address in json.loads(line)["addresses"] if address.startswith("tcp://"))

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.is_alive

    async def change_models(self, models: Models) -> None:
        """Load and unload until it serves these. Raises ConfigError, InferError: then it serves some of them."""
        check_files(models, self._host)
        gone, wanted = changes(self._models, models)
        for name in wanted:
            options = {key: value for key, value in models[name].items() if key != "path"}
            path = find_model(str(models[name]["path"]), Path("/"))
            await self._client.load(name, path, **options)
            self._models = {**self._models, name: models[name]}
        for name in gone:
            await self._client.unload(name)
            self._models = {other: model for other, model in self._models.items() if other != name}

    async def check(self) -> None:
        """Raises InferError where it does not answer."""
        await self._client.models()

    async def pending(self) -> float:
        """Jobs that it has admitted and not answered."""
        status = await self._client.status()
        return float(status["gateway"]["pending"])

    async def stop(self) -> None:
        """Let it answer what it has, and end."""
        await self._client.close()
        if self._child is not None:
            self._child.ask_to_end()
            drain = float(self._settings.get("drain_timeout_ms", _DRAIN)) / 1000
            await asyncio.to_thread(self._child.close, drain + _GRACE)
        self._ending.close()


def _lines(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        yield f"{toml_key(name)} = {toml_value(value)}"


def _table(name: str, model: Mapping[str, Any]) -> Iterator[str]:
    yield f"[models.{toml_key(name)}]"
    yield from _lines(model)
