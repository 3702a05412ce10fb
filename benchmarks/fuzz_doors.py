"""Requests that somebody spoilt, at every door: each is answered or refused by name, and nothing else ever happens.

    python benchmarks/fuzz_doors.py [--count 100000] [--seed 0] [--door http]...

Beside them a client asks each door for a good answer, again and again. No process dies, no slot is lost, and what the
doors' processes take of memory after the last request is not much more than after the first tenth.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.fuzz_support import callers
from benchmarks.fuzz_support.http_client import Conversation
from benchmarks.machine import free_port, print_header
from parallel_infer import Client
from parallel_infer.tools.local_server import local_server

CALLERS: dict[str, Callable[[str, int, int], Awaitable[callers.Outcomes]]] = {
    "http": callers.http,
    "grpc": callers.grpc_calls,
    "frigate": callers.frigate,
    "imagezmq": callers.imagezmq,
}
WARM = 0.1  # of the requests, after which memory is compared


class GoodClient:
    """Asks for the answer to a good picture until it is told to stop, and checks each answer."""

    def __init__(self, http: str) -> None:
        host, _, port = http.rpartition(":")
        self._conversation = Conversation(host, int(port))
        picture = callers.PICTURE.read_bytes()
        head = f"POST /infer/detector HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(picture)}\r\n\r\n"
        self._request = head.encode() + picture
        self.answered = 0
        self.longest = 0.0  # seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Raises AssertionError where an answer is wrong."""
        while not stop.is_set():
            started = time.perf_counter()
            status, body = await self._conversation.ask(self._request, whole=True)
            self.longest = max(self.longest, time.perf_counter() - started)
            assert status == "200", (status, body[:500])
            assert "cup" in {found["class"] for found in json.loads(body)["predictions"]}, body[:500]
            self.answered += 1
            await asyncio.sleep(0.05)
        self._conversation.close()


async def fuzz(door: str, address: str, http: str, count: int, seed: int) -> tuple[callers.Outcomes, GoodClient]:
    """Send `count` spoilt requests to a door, with a good client beside them."""
    good, stop = GoodClient(http), asyncio.Event()
    beside = asyncio.ensure_future(good.run(stop))
    outcomes = await CALLERS[door](address, count, seed)
    stop.set()
    await beside
    return outcomes, good


def memory(pid: int) -> float:
    """Resident megabytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def check_whole(client: Client) -> None:
    """Raises AssertionError where a process has died or anything is still held."""
    for _ in range(200):  # a job whose client hung up is still inside for a moment
        status: Any = client.status()
        if not (status["gateway"]["pending"] or status["gateway"]["held"] or status["jobs"]):
            break
        time.sleep(0.05)
    assert status["gateway"]["pending"] == status["gateway"]["held"] == status["jobs"] == 0, status["gateway"]
    assert all(ring["free"] == ring["slots"] for ring in status["gateway"]["ingress"]), status["gateway"]
    assert all(model["leaked"] == {"rows": 0, "outputs": 0} for model in status["models"].values()), status["models"]
    assert not any(process["restarts"] for process in status["processes"].values()), status["processes"]


def run(doors: list[str], count: int, seed: int) -> None:
    """Serve, and spoil the doors' days one after another."""
    places = {door: f"127.0.0.1:{free_port()}" for door in CALLERS}
    frames = {door: f"tcp://{places[door]}" for door in ("frigate", "imagezmq")}
    options: tuple[str, ...] = ("--http", places["http"], "--grpc", places["grpc"])
    options += ("--frigate-bind", frames["frigate"], "--imagezmq-bind", frames["imagezmq"])
    with (
        tempfile.TemporaryDirectory(prefix="pi-fuzz-"),
        local_server("--model", "detector=zoo:detector", *options) as server,
        Client(server.address) as client,
    ):
        for door in doors:
            address, started = frames.get(door, places[door]), time.perf_counter()
            first, _ = asyncio.run(fuzz(door, address, places["http"], max(1, int(count * WARM)), seed))
            pid = client.status()["doors"][door]["pid"]
            before = memory(pid)
            rest, good = asyncio.run(fuzz(door, address, places["http"], count - first.total(), seed + 1))
            check_whole(client)
            outcomes = ", ".join(f"{number:,} {name}" for name, number in (first + rest).most_common())
            took = time.perf_counter() - started
            print(f"{door:9s} {(first + rest).total():,} spoilt requests in {took:.0f} s: {outcomes}")
            print(
                f"{'':9s} beside them {good.answered:,} good ones answered, the slowest after {good.longest:.2f} s; "
                f"memory {before:.0f} -> {memory(pid):.0f} MB",
                flush=True,
            )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="spoilt requests at each door")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--door", action="append", choices=list(CALLERS), help="only this door; may be given again")
    arguments = parser.parse_args()
    print_header()
    run(arguments.door or list(CALLERS), arguments.count, arguments.seed)
    print("no process died, no slot is held, every answer was one that may be given")


if __name__ == "__main__":
    main()
