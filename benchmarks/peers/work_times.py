"""Where the processor time of a picture goes: the parts of the peers' work, and the stages of our server.

    python benchmarks/peers/work_times.py [--models detector,classifier] [--filters own,linear] [--peer mosec]

A 1280x720 JPEG, milliseconds of processor time per picture. The peers' work runs in the peer's environment without its
server: one thread, one picture or eight at a time, with the provider and precision of our server. Ours runs as it
starts but for its trial, with one thread for each instance; the time of its stages is what they count themselves
(benchmarks/hops.py), "rest" that of its processes outside of the stages. The client is left out on both sides. Its
decoding includes resizing, and its model normalises the pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import timed_stages
from benchmarks.hops import measure
from benchmarks.machine import print_header
from benchmarks.peers.filters import LINEAR, OWN, Filter, filters, preprocess_of
from benchmarks.peers.pairs import Provider
from benchmarks.peers.peer import HERE, PEERS, Served
from benchmarks.peers.run import model_path, providers
from benchmarks.peers.work import Setup
from benchmarks.waits import jpeg_720p
from parallel_infer import Client
from parallel_infer.tools.local_server import local_server

_BATCH = 8
_IN_FLIGHT = (1, 32)
_COLUMNS = ("decode", "resize", "batch", "run", "answer", "rest")
_STAGES = {"decode": "decode", "infer": "run", "postprocess": "answer"}  # columns by what a process is called

Times = dict[str, float]  # milliseconds by column


def theirs(peer: str, path: str, each: Filter, provider: Provider, picture: Path) -> dict[str, Times]:
    """Times of the peers' work by the size of the batch."""
    setup = Setup(
        path,
        0,
        threads=1,
        batch=_BATCH,
        provider=provider.name,
        precision=provider.precision,
        spins=False,
        preprocess=preprocess_of(path, each.chosen),
    )
    environment = os.environ | setup.environment() | {"PYTHONPATH": str(HERE)}
    command = [str(PEERS[peer].python), "-m", "servers.times", str(picture)]
    done = subprocess.run(command, check=True, cwd=HERE, env=environment, stdout=subprocess.PIPE, text=True)
    found: dict[str, Times] = json.loads(done.stdout)
    return found


def ours(path: str, resized: Filter, provider: Provider, picture: Path, jobs: int) -> dict[int, Times]:
    """Times of our server by the number of jobs in flight."""
    with tempfile.TemporaryDirectory(prefix="pi-times-", dir="/dev/shm") as folder:  # where decode workers may write
        counted = Path(folder) / "times"
        timed_stages.create(counted)
        os.environ[timed_stages.VARIABLE] = str(counted)
        stages, payload = timed_stages.stage_times(counted), picture.read_bytes()
        words = [*Served(path, filter=resized.chosen).arguments(Path(folder)), "--no-trial", "--log-level", "warning"]
        words += ["--threads", "1", "--max-batch-size", str(_BATCH)]
        words += ["--provider", provider.name, "--precision", provider.precision]
        with (
            local_server(*words, program=(timed_stages.__file__,)) as server,
            Client(server.address, timeout=60) as client,
        ):

            def run(in_flight: int, count: int) -> object:
                return client.infer_many("model", [payload] * count, in_flight=in_flight)

            return {each: by_column(measure(partial(run, each), server, stages, jobs)) for each in _IN_FLIGHT}


def by_column(found: Mapping[str, Sequence[float | None]]) -> Times:
    """What `measure` found, as columns: milliseconds of the stages, and of the server's processes outside of them."""
    times = dict.fromkeys((*_STAGES.values(), "rest"), 0.0)
    for process, (spent, outside, *_) in found.items():
        if process != "client":
            times["rest"] += (outside or 0.0) / 1000
            if column := _STAGES.get(process.split("-")[0]):
                times[column] += ((spent or 0.0) - (outside or 0.0)) / 1000
    return times


def line(title: str, times: Times) -> str:
    """One line of the table."""
    cells = [f"{times[name]:8.2f}" if name in times else f"{'-':>8}" for name in _COLUMNS]
    return f"  {title:<30}{''.join(cells)}{sum(times.values()):8.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="detector,classifier,resnet50,yolov8n")
    parser.add_argument("--filters", default=f"{OWN},{LINEAR}", help="own, linear or both")
    parser.add_argument("--peer", default="mosec", choices=[*PEERS], help="whose environment")
    parser.add_argument("--provider", default="ours", choices=("ours", "default"))
    parser.add_argument("--jobs", type=int, default=400, help="of each measurement of ours")
    arguments = parser.parse_args()
    if not PEERS[arguments.peer].is_built:
        parser.error(f"{arguments.peer} is not built; benchmarks/peers/build.sh {arguments.peer} builds it")
    print_header()
    (provider,) = providers(arguments.provider, [])
    with tempfile.TemporaryDirectory(prefix="pi-times-") as folder:
        picture = Path(folder) / "picture.jpg"
        picture.write_bytes(jpeg_720p())
        for model in arguments.models.split(","):
            path = model_path(model)
            for each in filters(arguments.filters.split(","), path):
                title = f"{model}, {each}, {provider.name} {provider.precision}"
                print(f"{title:<32}{''.join(f'{name:>8}' for name in (*_COLUMNS, 'all'))}")
                for size, times in theirs(arguments.peer, path, each, provider, picture).items():
                    print(line(f"peers' work, batch of {size}", times))
                for in_flight, times in ours(path, each, provider, picture, arguments.jobs).items():
                    print(line(f"ours, {in_flight} in flight", times), flush=True)


if __name__ == "__main__":
    main()
