"""The server of a machine as a node holds it: started from settings, told of other models, ended."""

from __future__ import annotations

import asyncio

import pytest

from parallel_infer import AsyncClient
from parallel_infer.errors import ConfigError
from parallel_infer.fleet.node import Server

SETTINGS = {
    "instances": 1, "decode_workers": 1, "postprocess_workers": 1, "shared_memory_mb": 16, "max_payload_mb": 4.0,
    "max_batch_size": 2,
}  # fmt: skip
CLASSIFIER = {"path": "zoo:classifier"}


async def names(address: str) -> set[str]:
    async with AsyncClient(address, timeout=60) as client:
        return {model["name"] for model in await client.models()}


@pytest.mark.slow  # starts a server; .venv/bin/python -m pytest -m slow tests/fleet/test_node.py
def test_models_change_without_a_restart_and_what_a_machine_lacks_changes_nothing() -> None:
    async def life() -> None:
        server = Server(SETTINGS, {"a": CLASSIFIER}, "127.0.0.1", 0)
        await server.start()
        address = server.address
        assert address.startswith("tcp://127.0.0.1:")
        assert await names(address) == {"a"}
        await server.change_models({"a": CLASSIFIER, "b": CLASSIFIER})
        assert await names(address) == {"a", "b"}
        with pytest.raises(ConfigError, match=r"machine 127.0.0.1: model c: there is no file /nowhere/c.onnx"):
            await server.change_models({"c": {"path": "/nowhere/c.onnx"}})
        assert await names(address) == {"a", "b"}
        await server.change_models({"b": CLASSIFIER})
        assert await names(address) == {"b"}
        await server.check()
        assert await server.pending() == 0
        assert server.is_alive
        await server.stop()
        assert not server.is_alive

    asyncio.run(life())


def test_a_server_that_does_not_start_says_on_which_machine_and_why() -> None:
    async def start(settings: dict[str, object], models: dict[str, dict[str, str]], said: str) -> None:
        server = Server(settings, models, "127.0.0.1", 0)
        with pytest.raises(ConfigError, match=said):
            await server.start()
        assert not server.is_alive
        await server.stop()

    wrong = {**SETTINGS, "max_batch_size": 0}
    asyncio.run(start(wrong, {"a": CLASSIFIER}, "machine 127.0.0.1 the server does not start: .*max_batch_size is 0"))
    asyncio.run(start(SETTINGS, {"a": {"path": "/nowhere"}}, "machine 127.0.0.1: model a: there is no file /nowhere"))
