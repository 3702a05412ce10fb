"""Whether the memory of the processes that live as long as the server levels off: over many jobs, and over kills.

    python benchmarks/growth.py [--jobs 1000000] [--kills 64]

A model that does nothing is asked as fast as it answers, and own memory (PSS without shared memory) of supervisor,
gateway and dispatcher is printed ten times. Then workers are killed one after the other, each once the one before it is
back and has worked, and it is printed eight times more. What levels off is memory that is used again; what grows as
much in the second half as in the first is a leak.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.chaos_support.faults import WORKERS, processes
from benchmarks.footprint import memory
from benchmarks.machine import print_header
from benchmarks.nothing_model import write_nothing_model
from parallel_infer import Client
from parallel_infer.tools.local_server import LocalServer, local_server

LASTING = ("supervisor", "gateway", "dispatcher")
MODEL, SIZE = "nothing", 100
_PATIENCE = 30.0  # seconds for a killed worker to be replaced


def ask(client: Client, count: int) -> None:
    """Ask `count` times; 10,000 answers are kept at most."""
    for first in range(0, count, 10_000):
        payloads = itertools.repeat({"x": np.zeros(SIZE, np.uint8)}, min(10_000, count - first))
        client.infer_many(MODEL, payloads)


def print_memory(what: str, server: LocalServer) -> None:
    """One line: own memory of the processes that last."""
    found = processes(server)
    own = {name: total - shared for name in LASTING for total, shared in [memory(found[name])]}
    print(f"{what:>16s}  " + "  ".join(f"{own[name] / 1e6:10.2f}" for name in LASTING), flush=True)


def kill_one(server: LocalServer, client: Client, number: int) -> None:
    """Kill a worker and wait until there is another and it has worked. Raises TimeoutError where none comes."""
    before = processes(server)
    workers = [name for name in before if name.startswith(WORKERS)]
    victim = workers[number % len(workers)]
    os.kill(before[victim], signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE
    while processes(server).get(victim, before[victim]) == before[victim] or not client.ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{victim} was not replaced within {_PATIENCE:.0f} s")
        ask(client, 100)
    ask(client, 300)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=64)
    arguments = parser.parse_args()
    print_header()
    os.environ["PARALLEL_INFER_RESTART_BUDGET"] = str(arguments.kills + 1)
    workers = ("--instances", "2", "--decode-workers", "2", "--postprocess-workers", "2")
    with tempfile.TemporaryDirectory(prefix="pi-growth-") as folder:
        path = Path(folder) / "nothing.onnx"
        write_nothing_model(path, SIZE)
        options = ("--provider", "cpu", "--model", f"{MODEL}={path}", *workers, "--log-level", "error")
        with local_server(*options) as server, Client(server.address, timeout=60.0) as client:
            print(f"\n{'own memory, MB':>16s}  " + "  ".join(f"{name:>10s}" for name in LASTING))
            for part in range(1, 11):
                ask(client, arguments.jobs // 10)
                print_memory(f"{arguments.jobs // 10 * part:,} jobs", server)
            for number in range(1, arguments.kills + 1):
                kill_one(server, client, number)
                if number % max(1, arguments.kills // 8) == 0:
                    print_memory(f"{number} kills", server)


if __name__ == "__main__":
    main()
