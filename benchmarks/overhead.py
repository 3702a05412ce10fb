"""What the pipeline itself costs: jobs through every process with a model that does nothing.

    python benchmarks/overhead.py [--seconds 5] [--rounds 3]

Prints jobs/s at several numbers in flight with payloads of 100 bytes and of 150 KB, and the latency of one job at a
time, for one client process on the same machine; the same of the bare pipeline of benchmarks/bare.py, in turn; and the
ratio, which says more than either on a machine whose speed is not known.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import bare
from benchmarks.machine import print_header
from benchmarks.nothing_model import write_nothing_model
from parallel_infer import Client
from parallel_infer.tools.local_server import local_server

SIZES = (100, 150_000)


def throughput(client: Client, size: int, in_flight: int, seconds: float) -> float:
    """Jobs per second with `in_flight` jobs under way."""
    payload = {"x": np.zeros(size, np.uint8)}
    model = f"nothing-{size}"
    client.infer_many(model, [payload] * 200, in_flight=in_flight)
    jobs, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        client.infer_many(model, [payload] * 2000, in_flight=in_flight)
        jobs += 2000
    return jobs / spent


def latencies(client: Client, size: int, count: int) -> list[float]:
    """Seconds of single jobs, one after the other."""
    payload = {"x": np.zeros(size, np.uint8)}
    found = []
    for _ in range(count):
        started = time.perf_counter()
        client.infer(f"nothing-{size}", payload)
        found.append(time.perf_counter() - started)
    return sorted(found)


class Figures:
    """What was found, by name: ours and the bare pipeline's, round by round."""

    def __init__(self) -> None:
        self.ours: dict[str, list[float]] = {}
        self.bare: dict[str, list[float]] = {}

    def add(self, name: str, ours: float, stripped: float) -> None:
        """One round's."""
        self.ours.setdefault(name, []).append(ours)
        self.bare.setdefault(name, []).append(stripped)

    def medians(self) -> dict[str, dict[str, float]]:
        """Medians over the rounds, and ours over the bare pipeline's."""
        medians = {name: (statistics.median(self.ours[name]), statistics.median(self.bare[name])) for name in self.ours}
        return {name: {"ours": a, "bare": b, "ratio": a / b} for name, (a, b) in medians.items()}


def measure(seconds: float, rounds: int) -> Figures:
    """All figures, over rounds that alternate."""
    found = Figures()
    with tempfile.TemporaryDirectory(prefix="pi-bench-") as folder:
        options = ["--provider", "cpu"]  # it calls a model that does nothing with the least ado
        for size in SIZES:
            path = Path(folder) / f"nothing-{size}.onnx"
            write_nothing_model(path, size)
            options += ["--model", f"nothing-{size}={path}"]
        with local_server(*options) as server, Client(server.address) as client, bare.bare_server() as stripped:
            for _ in range(rounds):
                for size in SIZES:
                    for in_flight in (8, 64):
                        rates = (
                            throughput(client, size, in_flight, seconds),
                            bare.throughput(stripped, size, in_flight, seconds),
                        )
                        found.add(f"{size} bytes, {in_flight} in flight, jobs/s", *rates)
                    single = latencies(client, size, 1000), bare.latencies(stripped, size, 1000)
                    for percent in (50, 99):
                        at = (times[percent * 10] * 1000 for times in single)
                        found.add(f"{size} bytes, one at a time, p{percent} ms", *at)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of all measurements")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    arguments = parser.parse_args()
    if not arguments.json:
        print_header()
    figures = measure(arguments.seconds, arguments.rounds).medians()
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"{'':42s} {'ours':>10s} {'bare':>10s} {'ratio':>7s}")
    for name, row in figures.items():
        print(f"{name:42s} {row['ours']:10,.2f} {row['bare']:10,.2f} {row['ratio']:7.2f}")


if __name__ == "__main__":
    main()
