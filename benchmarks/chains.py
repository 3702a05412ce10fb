"""One request against several: a fan against a request for each model, a chain against a client that cuts out itself.

    python benchmarks/chains.py fan    [--in-flight 32] [--seconds 5] [--rounds 3] [--provider cpu]
    python benchmarks/chains.py chain  [--in-flight 32] [--seconds 5] [--rounds 3] [--provider cpu]
                                       [--height 720] [--decode-workers 0]

Both ways ask the same server about the same JPEG of 16:9 with our own client, in turns, and their answers are compared
first. The client's own work, decoding and cutting out, is part of the second way. `chain` also tells the time of one
request at a time. Beside the rates stand processor time by picture, of the server and of the client, by stage, and how
often the server decoded a picture for a fan or a chain. The most that the first way could gain where the cores are full
is what the second one takes beside the first one's decoding and inference, were all else for nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import timed_stages
from benchmarks.footprint import title
from benchmarks.machine import print_header
from benchmarks.pictures import read_picture
from benchmarks.still import processor_seconds
from parallel_infer import Answer, AsyncClient
from parallel_infer.errors import ResourceUnavailable
from parallel_infer.tools.local_server import LocalServer, local_server

Way = Callable[[AsyncClient], Awaitable[list[Answer]]]
PICTURES = Path(__file__).resolve().parents[1] / "parallel_infer" / "zoo" / "pictures"
CONFIDENCE = 0.385  # between the scores of two objects, far from both
CHAIN = f"kinds=detector(confidence={CONFIDENCE}) > classifier"
MODELS = {"fan": ("detector", "pose"), "chain": ("detector", "classifier")}


def street(height: int = 720) -> bytes:
    """A JPEG of 16:9: two people, a cup and a cat."""
    person, cup, cat = (read_picture(PICTURES / f"{name}.png") for name in ("astronaut", "coffee", "chelsea"))
    canvas = np.full((720, 1280, 3), 114, np.uint8)
    canvas[104:616, :512] = person
    canvas[:360, 512:872] = cv2.resize(person, (360, 360))
    canvas[360:, 512:1052] = cv2.resize(cup, (540, 360))
    canvas[:300, 872:1280] = cv2.resize(cat, (408, 300))
    sized = cv2.resize(canvas, (height * 16 // 9, height)) if height != len(canvas) else canvas
    done, encoded = cv2.imencode(".jpg", sized, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done
    return encoded.tobytes()


def answers_of(found: Answer) -> list[Answer]:
    """Every answer in one, in order."""
    inside = [*found.parts.values(), *(child for children in found.children for child in children.values())]
    return [*([] if found.task == "fan" else [found]), *(part for part in inside if isinstance(part, Answer))]


async def patiently(client: AsyncClient, model: str, picture: bytes | np.ndarray, **options: Any) -> Answer:
    """An answer; the picture is sent again where the server has no room, as any client has to."""
    while True:
        try:
            return await client.infer(model, picture, **options)
        except ResourceUnavailable as error:
            await asyncio.sleep(max(error.retry_after, 0.005))


def ways(what: str, jpeg: bytes) -> dict[str, Way]:
    """The two ways to ask."""

    async def fan(client: AsyncClient) -> list[Answer]:
        return answers_of(await patiently(client, "detector+pose", jpeg))

    async def two(client: AsyncClient) -> list[Answer]:
        return list(await asyncio.gather(*(patiently(client, model, jpeg) for model in MODELS["fan"])))

    async def chain(client: AsyncClient) -> list[Answer]:
        return answers_of(await patiently(client, "kinds", jpeg))

    async def by_hand(client: AsyncClient) -> list[Answer]:
        found = await patiently(client, "detector", jpeg, confidence=CONFIDENCE)
        frame = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert frame is not None
        corners = np.concatenate((np.floor(found.boxes[:, :2]), np.ceil(found.boxes[:, 2:])), axis=1).astype(int)
        crops = [frame[top:bottom, left:right] for left, top, right, bottom in corners]
        return [found, *await asyncio.gather(*(patiently(client, "classifier", crop) for crop in crops))]

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


class Round(NamedTuple):
    """One way for a while."""

    rate: float  # pictures per second
    took: list[float]  # seconds of each
    server: float  # seconds of processor time for each
    client: float
    stages: dict[str, float]  # seconds of processor time for each, by stage


class Stages:
    """What the stages of a server have worked, by their own count (benchmarks/timed_stages.py)."""

    def __init__(self, server: LocalServer, times: memoryview[float]) -> None:
        self._server = server
        self._times = times

    def seconds(self) -> dict[str, float]:
        """Seconds of processor time so far: "decode", "postprocess" and each model."""
        found: dict[str, float] = {}
        for process in self._server.processes():
            if worked := self._times[process]:
                place = title(process).removeprefix("parallel-infer: ").rpartition("-")[0]
                stage = place.removeprefix("infer-")
                found[stage] = found.get(stage, 0.0) + worked
        return found


async def measured(
    client: AsyncClient, server: LocalServer, stages: Stages, way: Way, in_flight: int, seconds: float
) -> Round:
    """One way, with so many pictures under way."""
    end, took = time.monotonic() + seconds, []

    async def ask() -> None:
        while (began := time.monotonic()) < end:
            await way(client)
            took.append(time.monotonic() - began)

    began, used, own = time.monotonic(), processor_seconds(server), time.process_time()
    worked = stages.seconds()
    await asyncio.gather(*(ask() for _ in range(in_flight)))
    count, lasted = len(took), time.monotonic() - began
    own = time.process_time() - own
    worked = {stage: (done - worked.get(stage, 0.0)) / count for stage, done in stages.seconds().items()}
    return Round(count / lasted, took, (processor_seconds(server) - used) / count, own / count, worked)


async def decoded(client: AsyncClient) -> tuple[int, int]:
    """Pictures of fans and chains that were decoded so far, and jobs that found theirs decoded."""
    models = (await client.status())["models"].values()
    return sum(model["decoded"] for model in models), sum(model["reused"] for model in models)


async def run(arguments: argparse.Namespace, server: LocalServer, stages: Stages) -> None:
    """Both ways in turns, and what comes of it."""
    both = ways(arguments.what, street(arguments.height))
    name, *_ = both
    async with AsyncClient(server.address, timeout=60.0) as client:
        print(f"{await compared(client, both)} answers for each picture\n")
        loads = (1, arguments.in_flight) if arguments.what == "chain" else (arguments.in_flight,)
        for in_flight in loads:
            rounds: dict[str, list[Round]] = {way: [] for way in both}
            before = await decoded(client)
            for _ in range(arguments.rounds):
                for each, way in both.items():
                    rounds[each].append(await measured(client, server, stages, way, in_flight, arguments.seconds))
            found = await decoded(client)
            _print(in_flight, rounds, MODELS[arguments.what])
            asked = sum(len(each.took) for each in rounds[name])
            pictures, jobs = (after - already for after, already in zip(found, before, strict=True))
            print(f"  {asked} times {name}: {pictures} pictures decoded, {jobs} jobs found theirs decoded\n")


def _print(in_flight: int, rounds: dict[str, list[Round]], models: tuple[str, ...]) -> None:
    print(f"{in_flight} in flight")
    rates, middles, whole, least = [], [], [], []
    for name, found in rounds.items():
        rates.append(statistics.median(each.rate for each in found))
        middles.append(1000 * statistics.median(seconds for each in found for seconds in each.took))
        server = 1000 * statistics.median(each.server for each in found)
        client = 1000 * statistics.median(each.client for each in found)
        names = ("decode", *models, "postprocess")
        stages = {stage: 1000 * statistics.median(each.stages.get(stage, 0.0) for each in found) for stage in names}
        whole.append(server + client)
        least.append(sum(stages.values()) - stages["postprocess"])
        print(f"  {name:24} {rates[-1]:8.1f} pictures/s   p50 {middles[-1]:8.1f} ms   "
              f"(rounds {', '.join(f'{each.rate:.1f}' for each in found)})")  # fmt: skip
        print(f"  {'':24} processor time {whole[-1]:.1f} ms: {_listed(stages)}, "
              f"between them {server - sum(stages.values()):.1f}, client {client:.1f}")  # fmt: skip
    print(f"  {rates[0] / rates[1]:.2f} times the pictures, {middles[0] / middles[1]:.2f} times the p50; by processor "
          f"time {whole[1] / whole[0]:.2f} times, {whole[1] / least[0]:.2f} at most")  # fmt: skip


def _listed(stages: dict[str, float]) -> str:
    return ", ".join(f"{stage} {milliseconds:.1f}" for stage, milliseconds in stages.items())


def main() -> None:
    """Start a server, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(MODELS))
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3, help="of each way, in turns")
    parser.add_argument("--provider", default="auto", help="of the server")
    parser.add_argument("--height", type=int, default=720, help="of the picture")
    parser.add_argument("--decode-workers", default="0", help="of the server; 0: as many as it chooses")
    arguments = parser.parse_args()
    print_header()
    models = [f"--model={name}=zoo:{name}" for name in MODELS[arguments.what]]
    chain = [f"--chain={CHAIN}"] if arguments.what == "chain" else []
    options = ("--provider", arguments.provider, "--decode-workers", arguments.decode_workers, "--log-level", "error")
    # In shared memory, the only place where decode workers may write.
    with tempfile.TemporaryDirectory(prefix="pi-chains-", dir="/dev/shm") as folder:
        times = Path(folder) / "times"
        timed_stages.create(times)
        os.environ[timed_stages.VARIABLE] = str(times)
        counted = timed_stages.stage_times(times)
        with local_server(*models, *chain, *options, program=(timed_stages.__file__,)) as server:
            asyncio.run(run(arguments, server, Stages(server, counted)))


if __name__ == "__main__":
    main()
