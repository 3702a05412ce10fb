"""Clients that are told several addresses: one is in use, the next one when it is lost, and nothing is lost with it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel_infer import AsyncClient, Client
from parallel_infer.errors import ServerUnavailable
from tests.engine.serving import eventually
from tests.router.processes import Echo, Router, as_members, freeze, payload

StartEcho = Callable[..., Echo]
StartRouter = Callable[..., Router]


def both(*processes: Any) -> str:
    return ",".join(process.address for process in processes)


def settle(jobs: list[Any]) -> None:
    for number, job in enumerate(jobs):
        np.testing.assert_array_equal(job.result(30).tensors["y"], payload(number)["x"])


def test_the_first_that_is_there_answers(echo: StartEcho, place: Path):
    there = echo("e0")
    with Client(f"ipc://{place}/nobody, {there.address}", timeout=30) as client:
        assert client.infer("echo", payload(1)).tensors["y"].tobytes() == payload(1)["x"].tobytes()
        settle([client.submit("echo", payload(number)) for number in range(20)])


def test_what_the_one_in_use_leaves_unanswered_goes_to_the_next_and_back(echo: StartEcho):
    first, second = echo("e0", 0.2), echo("e1", 0.2)
    with Client(both(first, second), timeout=30) as client:
        jobs = [client.submit("echo", payload(number)) for number in range(50)]
        jobs[0].result(30)
        jobs += [client.submit("echo", payload(number)) for number in range(50, 100)]
        first.kill()
        settle(jobs)
        first.start()
        jobs = [client.submit("echo", payload(number)) for number in range(50)]
        second.kill()
        settle(jobs)


def test_one_that_stands_still_is_left_for_the_next(echo: StartEcho):
    first, second = echo("e0"), echo("e1")
    with Client(both(first, second), timeout=30) as client:
        client.infer("echo", payload(0))
        freeze(first)
        settle([client.submit("echo", payload(number)) for number in range(20)])
        client.infer("echo", payload(1))


def test_asyncio_as_well(echo: StartEcho):
    first, second = echo("e0", 0.2), echo("e1")

    async def ask() -> list[Any]:
        async with AsyncClient(both(first, second), timeout=30) as client:
            await client.infer("echo", payload(0))
            jobs = [asyncio.ensure_future(client.infer("echo", payload(number))) for number in range(20)]
            await asyncio.sleep(0)
            first.kill()
            return list(await asyncio.gather(*jobs))

    for number, answer in enumerate(asyncio.run(ask())):
        np.testing.assert_array_equal(answer.tensors["y"], payload(number)["x"])


def test_a_router_that_is_stopped_is_left_for_the_next(echo: StartEcho, route: StartRouter):
    members = as_members(echo("e0", 0.05))
    routers = [route(*members, name=f"router{number}") for number in range(2)]
    with Client(both(*routers), timeout=30) as client:
        client.infer("echo", payload(0))
        jobs = [client.submit("echo", payload(number)) for number in range(50)]
        assert routers[0].stop() == 0
        jobs += [client.submit("echo", payload(number)) for number in range(50, 100)]
        settle(jobs)
        with routers[1].client() as second:
            eventually(lambda: second.status()["router"]["jobs"] == 0)


def test_where_nobody_is_there_each_is_named(place: Path):
    with (
        Client(f"ipc://{place}/a,tcp://127.0.0.1:9", timeout=0.5) as client,
        pytest.raises(ServerUnavailable, match=rf"{place}/a.*127\.0\.0\.1:9"),
    ):
        client.infer("echo", payload(0))


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("tcp://127.0.0.1:1,tcp://127.0.0.1:99999", "99999"),
        ("tcp://127.0.0.1:1,tcp://127.0.0.1:1", "twice"),
        ("tcp://127.0.0.1:1,tcp://", "no address"),
        ("tcp://127.0.0.1:1,nonsense", "no address"),
    ],
)
def test_a_list_with_nonsense_in_it_is_refused(address: str, why: str):
    with pytest.raises(ValueError, match=why):
        Client(address)
