"""What the doors cost: the same jobs over HTTP, over gRPC and over our own wire, in turns on one server.

    python benchmarks/doors.py [--seconds 4] [--rounds 5] [--requests 100000]

A model that does nothing, asked one at a time and 64 at a time by a client of plain sockets (HTTP), by grpc's own
(gRPC) and by our client; then 720p pictures for the detector, 32 in flight. Ratios are those of medians of rounds that
alternate. `--requests` is how many requests the memory of the HTTP door is watched over; 200 connections that say only
half of a request are then held beside a good client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import cv2
import grpc.aio
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.fuzz_doors import memory
from benchmarks.fuzz_support.callers import PICTURE
from benchmarks.fuzz_support.http_client import Conversation
from benchmarks.machine import free_port, print_header
from benchmarks.nothing_model import write_nothing_model
from benchmarks.pictures import read_picture
from parallel_infer import AsyncClient, Client
from parallel_infer.doors.grpc.messages import message
from parallel_infer.tools.local_server import local_server

SIZE = 100  # bytes of the tensor of the model that does nothing
HALF_OPEN = 200
_WARM = 0.3  # of the seconds of a measurement
Ask = Callable[[], Awaitable[None]]


class Figures:
    """Latencies of one measurement, in seconds."""

    def __init__(self, latencies: list[float], seconds: float) -> None:
        self.rate = len(latencies) / seconds
        self.p50 = statistics.median(latencies) if latencies else float("nan")
        self.p99 = sorted(latencies)[int(0.99 * len(latencies))] if latencies else float("nan")


async def closed_loop(callers: list[Ask], seconds: float) -> Figures:
    """Every caller asks again as soon as it is answered."""
    begin = time.perf_counter() + _WARM * seconds
    end = begin + seconds
    latencies: list[float] = []

    async def one(ask: Ask) -> None:
        while (sent := time.perf_counter()) < end:
            await ask()
            now = time.perf_counter()
            if sent >= begin and now <= end:
                latencies.append(now - sent)

    await asyncio.gather(*(one(ask) for ask in callers))
    return Figures(latencies, seconds)


class Doors:
    """The ways into one server."""

    def __init__(self, wire: str, http: str, grpc_place: str) -> None:
        self.wire, self.http, self.grpc = wire, http, grpc_place

    async def nothing(self, way: str, in_flight: int, seconds: float) -> Figures:
        """Jobs of the model that does nothing."""
        if way == "http":
            header = json.dumps(
                {
                    "inputs": [
                        {"name": "x", "datatype": "UINT8", "shape": [1, SIZE], "parameters": {"binary_data_size": SIZE}}
                    ],
                    "parameters": {"binary_data_output": True},
                }
            ).encode()
            named = f"Inference-Header-Content-Length: {len(header)}\r\n"
            return await self._posts("/v2/models/nothing/infer", header + bytes(SIZE), named, in_flight, seconds)
        if way == "grpc":
            return await self._calls(in_flight, seconds)
        payload = {"x": np.zeros(SIZE, np.uint8)}
        return await self._own("nothing", payload, in_flight, seconds)

    async def pictures(self, way: str, in_flight: int, seconds: float) -> Figures:
        """Pictures of 720p for the detector."""
        picture = cv2.imencode(".jpg", cv2.resize(read_picture(PICTURE), (1280, 720)))[1].tobytes()
        if way == "http":
            return await self._posts("/infer/detector", picture, "Content-Type: image/jpeg\r\n", in_flight, seconds)
        return await self._own("detector", picture, in_flight, seconds)

    async def _own(self, model: str, payload: Any, in_flight: int, seconds: float) -> Figures:
        async with AsyncClient(self.wire) as client:

            async def ask() -> None:
                await client.infer(model, payload)

            return await closed_loop([ask] * in_flight, seconds)

    async def _posts(self, path: str, body: bytes, headers: str, in_flight: int, seconds: float) -> Figures:
        host, _, port = self.http.rpartition(":")
        head = f"POST {path} HTTP/1.1\r\nHost: {self.http}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        request = head.encode() + body
        conversations = [Conversation(host, int(port)) for _ in range(in_flight)]

        def asking(conversation: Conversation) -> Ask:
            async def ask() -> None:
                status, answer = await conversation.ask(request, whole=True)
                assert status == "200", (status, answer[:500])

            return ask

        try:
            return await closed_loop([asking(conversation) for conversation in conversations], seconds)
        finally:
            for conversation in conversations:
                conversation.close()

    async def _calls(self, in_flight: int, seconds: float) -> Figures:
        asked = message("inference.ModelInferRequest")(model_name="nothing", raw_input_contents=[bytes(SIZE)])
        asked.inputs.add(name="x", datatype="UINT8", shape=[1, SIZE])
        data = asked.SerializeToString()
        async with grpc.aio.insecure_channel(self.grpc) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer"
            )

            async def ask() -> None:
                await call(data)

            return await closed_loop([ask] * in_flight, seconds)


def compare(doors: Doors, seconds: float, rounds: int) -> None:
    """Measure in turns and print."""
    loads: dict[str, tuple[Callable[[str, int, float], Awaitable[Figures]], tuple[str, ...], int]] = {
        "nothing, 1 in flight": (doors.nothing, ("own", "http", "grpc"), 1),
        "nothing, 64 in flight": (doors.nothing, ("own", "http", "grpc"), 64),
        "720p detector, 32 in flight": (doors.pictures, ("own", "http"), 32),
    }
    found: dict[tuple[str, str], list[Figures]] = {}
    for _ in range(rounds):
        for name, (load, ways, in_flight) in loads.items():
            for way in ways:
                figures = asyncio.run(_awaited(load(way, in_flight, seconds)))
                found.setdefault((name, way), []).append(figures)
    print(f"{'':30s} {'way':5s} {'per second':>11s} {'of own':>7s} {'p50 ms':>8s} {'p99 ms':>8s} {'p50 - own':>10s}")
    for (name, way), measured in found.items():
        rate, p50, p99 = (
            statistics.median(getattr(each, part) for each in measured) for part in ("rate", "p50", "p99")
        )
        own = found[name, "own"]
        own_rate = statistics.median(each.rate for each in own)
        own_p50 = statistics.median(each.p50 for each in own)
        more = f"{1000 * p50:8.2f} {1000 * p99:8.2f} {1000 * (p50 - own_p50):+10.2f}"
        ratio = rate / own_rate if own_rate else float("nan")  # where none was answered in time
        print(f"{name:30s} {way:5s} {rate:11,.0f} {ratio:7.2f} {more}")


async def _awaited(awaitable: Awaitable[Figures]) -> Figures:
    return await awaitable


def watch_memory(doors: Doors, client: Client, requests: int) -> None:
    """Memory of the HTTP door after each tenth of many requests."""
    pid = client.status()["doors"]["http"]["pid"]
    seen, done, wanted = [memory(pid)], 0, requests
    while done < wanted:
        before = client.status()["doors"]["http"]["requests"].get("200", 0)
        asyncio.run(_awaited(doors.nothing("http", 64, 2.0)))
        time.sleep(1.0)  # the door tells of what it has done twice a second
        done += client.status()["doors"]["http"]["requests"].get("200", 0) - before
        seen.append(memory(pid))
    steps = max(1, len(seen) // 8)
    print(f"memory of the HTTP door over {done:,} requests: {', '.join(f'{size:.0f}' for size in seen[::steps])} MB")


async def _held(doors: Doors, seconds: float) -> Figures:
    host, _, port = doors.http.rpartition(":")
    beginnings = (
        b"",
        b"POST /infer/d",
        b"POST /infer/detector HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n\xff",
    )
    held = []
    for number in range(HALF_OPEN):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(beginnings[number % len(beginnings)])
        held.append(writer)
    try:
        return await doors.nothing("http", 1, seconds)
    finally:
        for writer in held:
            writer.close()


def half_open(doors: Doors, seconds: float, rounds: int) -> None:
    """A good client alone and beside connections that are half open, in turns."""
    alone, beside = [], []
    for _ in range(rounds):
        alone.append(asyncio.run(_awaited(doors.nothing("http", 1, seconds))))
        beside.append(asyncio.run(_held(doors, seconds)))
    for name, measured in (("alone", alone), (f"beside {HALF_OPEN} half-open connections", beside)):
        p50, p99 = (1000 * statistics.median(getattr(each, part) for each in measured) for part in ("p50", "p99"))
        print(f"a good client {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="of all measurements")
    parser.add_argument("--requests", type=int, default=100_000, help="over which memory is watched; 0: not")
    arguments = parser.parse_args()
    print_header()
    http, grpc_place = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with tempfile.TemporaryDirectory(prefix="pi-bench-") as folder:
        write_nothing_model(Path(folder) / "nothing.onnx", SIZE)
        models = ("--model", f"nothing={folder}/nothing.onnx", "--model", "detector=zoo:detector")
        with (
            local_server(*models, "--http", http, "--grpc", grpc_place) as server,
            Client(server.address) as client,
        ):
            doors = Doors(server.address, http, grpc_place)
            compare(doors, arguments.seconds, arguments.rounds)
            half_open(doors, arguments.seconds, arguments.rounds)
            if arguments.requests:
                watch_memory(doors, client, arguments.requests)


if __name__ == "__main__":
    main()
