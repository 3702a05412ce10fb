"""One request against several: a fan against a request for each model, a chain against a client that cuts out itself.

    python benchmarks/chains.py fan    [--in-flight 32] [--seconds 5] [--rounds 3] [--provider cpu]
    python benchmarks/chains.py chain  [--in-flight 32] [--seconds 5] [--rounds 3] [--provider cpu]

Both ways ask the same server about the same 1280x720 JPEG with our own client, in turns, and their answers are compared
first. The client's own work, decoding and cutting out, is part of the second way. `chain` also tells the time of one
request at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_header
from benchmarks.pictures import read_picture
from parallel_infer import Answer, AsyncClient
from parallel_infer.errors import ResourceUnavailable
from parallel_infer.tools.local_server import local_server

Way = Callable[[AsyncClient], Awaitable[list[Answer]]]
PICTURES = Path(__file__).resolve().parents[1] / "parallel_infer" / "zoo" / "pictures"
CHAIN = "kinds=detector(confidence=0.4) > classifier"
MODELS = {"fan": ("detector", "pose"), "chain": ("detector", "classifier")}


def street() -> bytes:
    """A JPEG of 1280x720: two people, a cup and a cat."""
    person, cup, cat = (read_picture(PICTURES / f"{name}.png") for name in ("astronaut", "coffee", "chelsea"))
    canvas = np.full((720, 1280, 3), 114, np.uint8)
    canvas[104:616, :512] = person
    canvas[:360, 512:872] = cv2.resize(person, (360, 360))
    canvas[360:, 512:1052] = cv2.resize(cup, (540, 360))
    canvas[:300, 872:1280] = cv2.resize(cat, (408, 300))
    done, encoded = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done
    return encoded.tobytes()


def answers_of(found: Answer) -> list[Answer]:
    """Every answer in one, in order."""
    inside = [*found.parts.values(), *(child for children in found.children for child in children.values())]
    return [*([] if found.task == "fan" else [found]), *(part for part in inside if isinstance(part, Answer))]


async def patiently(client: AsyncClient, crop: np.ndarray) -> Answer:
    """What the classifier says of a crop; it is sent again where the server has no room, as any client has to."""
    while True:
        try:
            return await client.infer("classifier", crop)
        except ResourceUnavailable as error:
            await asyncio.sleep(max(error.retry_after, 0.005))


def ways(what: str, jpeg: bytes) -> dict[str, Way]:
    """The two ways to ask."""

    async def fan(client: AsyncClient) -> list[Answer]:
        return answers_of(await client.infer(["detector", "pose"], jpeg))

    async def two(client: AsyncClient) -> list[Answer]:
        return list(await asyncio.gather(client.infer("detector", jpeg), client.infer("pose", jpeg)))

    async def chain(client: AsyncClient) -> list[Answer]:
        return answers_of(await client.infer("kinds", jpeg))

    async def by_hand(client: AsyncClient) -> list[Answer]:
        found = await client.infer("detector", jpeg, confidence=0.4)
        frame = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))
        corners = np.concatenate((np.floor(found.boxes[:, :2]), np.ceil(found.boxes[:, 2:])), axis=1).astype(int)
        crops = [frame[top:bottom, left:right] for left, top, right, bottom in corners]
        return [found, *await asyncio.gather(*(patiently(client, crop) for crop in crops))]

    if what == "fan":
        return {"one fan": fan, "two requests": two}
    return {"one chain": chain, "cut out by the client": by_hand}


async def compared(client: AsyncClient, both: dict[str, Way]) -> int:
    """How many answers a request has; ends the program where the two ways do not say the same."""
    first, second = [await way(client) for way in both.values()]
    alike = len(first) == len(second) and all(
        one.classes.tolist()[:1] == other.classes.tolist()[:1] for one, other in zip(first, second, strict=True)
    )
    if not alike:
        sys.exit(f"the two ways do not say the same: {first} and {second}")
    return len(first)


async def measured(client: AsyncClient, way: Way, in_flight: int, seconds: float) -> tuple[float, list[float]]:
    """Pictures per second, and the seconds that each took."""
    end, took = time.monotonic() + seconds, []

    async def ask() -> None:
        while (began := time.monotonic()) < end:
            await way(client)
            took.append(time.monotonic() - began)

    began = time.monotonic()
    await asyncio.gather(*(ask() for _ in range(in_flight)))
    return len(took) / (time.monotonic() - began), took


async def run(arguments: argparse.Namespace, address: str) -> None:
    """Both ways in turns, and what comes of it."""
    both = ways(arguments.what, street())
    async with AsyncClient(address, timeout=60.0) as client:
        print(f"{await compared(client, both)} answers for each picture\n")
        loads = (1, arguments.in_flight) if arguments.what == "chain" else (arguments.in_flight,)
        for in_flight in loads:
            rates: dict[str, list[float]] = {name: [] for name in both}
            times: dict[str, list[float]] = {name: [] for name in both}
            for _ in range(arguments.rounds):
                for name, way in both.items():
                    rate, took = await measured(client, way, in_flight, arguments.seconds)
                    rates[name].append(rate)
                    times[name] += took
            _print(in_flight, rates, times)


def _print(in_flight: int, rates: dict[str, list[float]], times: dict[str, list[float]]) -> None:
    print(f"{in_flight} in flight")
    for name, found in rates.items():
        middle = 1000 * statistics.median(times[name])
        print(f"  {name:24} {statistics.median(found):8.1f} pictures/s   p50 {middle:8.1f} ms   "
              f"(rounds {', '.join(f'{rate:.1f}' for rate in found)})")  # fmt: skip
    (_, one), (_, other) = rates.items()
    (_, took), (_, took_other) = times.items()
    print(f"  {statistics.median(one) / statistics.median(other):.2f} times the pictures, "
          f"{statistics.median(took) / statistics.median(took_other):.2f} times the p50\n")  # fmt: skip


def main() -> None:
    """Start a server, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(MODELS))
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3, help="of each way, in turns")
    parser.add_argument("--provider", default="auto", help="of the server")
    arguments = parser.parse_args()
    print_header()
    models = [f"--model={name}=zoo:{name}" for name in MODELS[arguments.what]]
    chain = [f"--chain={CHAIN}"] if arguments.what == "chain" else []
    with local_server(*models, *chain, "--provider", arguments.provider, "--log-level", "error") as server:
        asyncio.run(run(arguments, server.address))


if __name__ == "__main__":
    main()
