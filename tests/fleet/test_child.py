"""Servers and routers below a replica: they say when they are ready and why not, and never outlive it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from parallel_infer import AsyncClient
from parallel_infer.errors import ConfigError
from parallel_infer.fleet.child import Child
from parallel_infer.fleet.route import Router

PARENT = """
import sys
from parallel_infer.fleet.child import Child
child = Child(["route", "--bind", sys.argv[1], "--member", "tcp://127.0.0.1:1", "--json"])
print(child.line(), end="", flush=True)
sys.stdin.read()
"""


def test_a_command_that_fails_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    child = Child(["serve", "--bind", "tcp://nowhere:1"])
    assert child.line() == ""
    assert "exit code 2: " in (why := child.ending())
    assert "'nowhere' is neither an IP address nor a network interface" in why
    assert "nowhere" in capfd.readouterr().err
    child.close(1.0)
    assert not child.is_alive


def test_it_ends_when_it_is_asked_to() -> None:
    child = Child(["serve", "--print-config"])
    assert child.line()
    child.ask_to_end()
    child.close(30.0)
    assert not child.is_alive


def test_it_dies_with_the_process_that_started_it() -> None:
    address = f"ipc://@parallel-infer-test-{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert '"ready": true' in parent.stdout.readline()
        (child,) = psutil.Process(parent.pid).children()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        _, alive = psutil.wait_procs([child], timeout=60)
    assert alive == []


ROUTE = {"router_host": "auto", "silence_ms": 1000.0, "most_lost": 3}


def children() -> set[psutil.Process]:
    return set(psutil.Process().children())


def test_a_router_that_ends_is_started_again_at_its_address() -> None:
    """Ray would take seconds for it, and clients wait."""

    async def kill_it() -> None:
        port = free_port()
        router = Router({**ROUTE, "port": port}, "127.0.0.1")
        before = children()
        await router.start(["tcp://127.0.0.1:1"])
        await router.check()
        (first,) = children() - before
        keeping = asyncio.create_task(router.keep())
        first.kill()
        await asyncio.to_thread(first.wait)
        async with AsyncClient(f"tcp://127.0.0.1:{port}", timeout=60) as client:
            assert await client.models() == []
        (second,) = children() - before
        assert second != first
        keeping.cancel()
        await router.stop()
        assert not second.is_running()

    asyncio.run(kill_it())


def test_a_router_that_cannot_listen_says_so() -> None:
    async def start() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            router = Router({**ROUTE, "port": taken.getsockname()[1]}, "127.0.0.1")
            with pytest.raises(ConfigError, match=r"machine 127.0.0.1 the router does not start: .*exit code"):
                await router.start([])
            with pytest.raises(ConfigError, match="the router has ended"):
                await router.check()
            await router.stop()

    asyncio.run(start())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
