"""720p pictures over HTTP: to a server's own door, and to the door of a router in front of that server, in turn."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

from benchmarks.doors import Doors
from benchmarks.machine import free_port
from benchmarks.router_support.processes import RouterUnderTest, Started, closing

_IN_FLIGHT = 32


def rates_of_pictures(folder: Path, seconds: float, rounds: int) -> tuple[float, float]:
    """Pictures per second, straight and through the router: medians of rounds that alternate."""
    address, own, routed = f"tcp://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    words = ["-m", "parallel_infer", "serve", "--bind", address, "--http", own, "--model", "detector=zoo:detector"]
    with closing([Started(address, [*words, "--json"])]) as (member,):
        router = RouterUnderTest(folder, [member], "--http", routed)
        with closing([router]):
            router.wait_for(1)
            found: dict[str, list[float]] = {own: [], routed: []}
            for _ in range(rounds):
                for place, rates in found.items():
                    figures = asyncio.run(Doors("", place, "").pictures("http", _IN_FLIGHT, seconds))
                    rates.append(figures.rate)
    return statistics.median(found[own]), statistics.median(found[routed])
