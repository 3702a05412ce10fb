"""Does anything grow? Steady load and a kill now and then, while memory, descriptors and threads are watched.

    python benchmarks/soak.py [--minutes 30] [--kills-per-minute 1] [--warm-up 2] [--rate 500]

Prints for each process that was not restarted its own memory after the warm-up and its slope by least squares, its
descriptors and its threads, then verdicts. Ends with 1 where one of them is bad. The slope of a short run says little:
a page more or less counts as much per hour as a leak does.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.chaos_support.faults import KINDS, Fault, Saboteur, processes
from benchmarks.chaos_support.loads import MODEL, LibraryLoad, Outcome, drive
from benchmarks.chaos_support.payloads import Payloads, write_identity_model
from benchmarks.chaos_support.settle import drain
from benchmarks.chaos_support.tally import Tally
from benchmarks.machine import print_header
from parallel_infer.tools.local_server import LocalServer, local_server

GROWTH = 1.0  # percent of a process's memory per hour
SETTLES = 20.0  # seconds after its start that a process may still grow
NOISE = 2**20  # bytes a process may grow in the whole run whatever the slope: the step of an allocator's arena


@dataclass(frozen=True)
class Sample:
    """One look at one process."""

    at: float
    private: int  # bytes of its own: neither rings nor libraries, whose part of the PSS depends on other processes
    descriptors: int
    threads: int


def own_memory(process: int) -> int:
    """Bytes of anonymous memory, in proportion where it is shared."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    return int(re.findall(r"Pss_Anon:\s+(\d+) kB", text)[0]) * 1024


class Watcher:
    """Looks at every process now and then. A process that was started again is a new one."""

    def __init__(self, server: LocalServer, every: float) -> None:
        self.samples: defaultdict[tuple[str, int], list[Sample]] = defaultdict(list)
        self._server = server
        self._every = every
        self._due = 0.0

    def look(self, now: float) -> None:
        """Look, where it is time."""
        if now < self._due:
            return
        self._due = now + self._every
        for place, process in {**processes(self._server), "supervisor": self._server.process.pid}.items():
            try:
                private = own_memory(process)
                descriptors = len([*Path(f"/proc/{process}/fd").iterdir()])
                threads = len([*Path(f"/proc/{process}/task").iterdir()])
            except OSError:  # it has just been killed
                continue
            self.samples[place, process].append(Sample(now, private, descriptors, threads))


def slope(samples: list[Sample]) -> float:
    """Bytes per hour, by least squares."""
    times = np.array([sample.at for sample in samples])
    sizes = np.array([sample.private for sample in samples], float)
    return float(np.polyfit(times - times[0], sizes, 1)[0] * 3600)


def report(watcher: Watcher, since: float, least: float) -> list[str]:
    """Print the table of processes that lived for at least `least` seconds; what is wrong with them."""
    print(
        f"{'process':24s} {'minutes':>8s} {'MB':>8s} {'%/h':>8s} {'MB grown':>9s} {'descriptors':>12s} {'threads':>8s}"
    )
    wrong = []
    for (place, _), all_samples in sorted(watcher.samples.items()):
        since_then = max(since, all_samples[0].at + SETTLES)
        samples = [sample for sample in all_samples if sample.at >= since_then]
        if len(samples) < 5 or samples[-1].at - samples[0].at < least:
            continue
        seconds = samples[-1].at - samples[0].at
        per_hour = slope(samples)
        percent = per_hour / samples[0].private * 100
        grown = per_hour * seconds / 3600
        descriptors = [sample.descriptors for sample in samples]
        threads = [sample.threads for sample in samples]
        print(
            f"{place:24s} {seconds / 60:8.1f} {samples[0].private / 2**20:8.1f} {percent:8.2f} {grown / 2**20:9.2f}"
            f" {min(descriptors):6d}-{max(descriptors):<5d} {min(threads):4d}-{max(threads):<3d}"
        )
        if percent > GROWTH and grown > NOISE:
            wrong.append(f"{place} grows by {percent:.1f} %/h")
        if _rises(descriptors):
            wrong.append(f"{place}: descriptors rise from {descriptors[0]} to {descriptors[-1]}")
        if _rises(threads):
            wrong.append(f"{place}: threads rise from {threads[0]} to {threads[-1]}")
    return wrong


def _rises(counts: list[int]) -> bool:
    """Whether the last third never gets as low as the highest of the first third."""
    third = max(1, len(counts) // 3)
    return min(counts[-third:]) > max(counts[:third])


def run(arguments: argparse.Namespace, server: LocalServer) -> tuple[Tally, Watcher, Counter[str], float]:
    """Jobs at a steady rate for the whole time; then wait for every slot to be free."""
    payloads, tally, watcher = Payloads(arguments.bytes), Tally(), Watcher(server, arguments.look)
    gap = 60 / arguments.kills_per_minute if arguments.kills_per_minute else float("inf")
    load = LibraryLoad(server.address, 30.0)
    began = time.monotonic()
    end = began + arguments.minutes * 60
    kinds = tuple(kind for kind in KINDS if kind not in arguments.spare)
    most = round(arguments.kills_per_minute * arguments.minutes)
    with Saboteur(server, kinds, Fault.KILL, (gap * 0.5, gap * 1.5), 1, most) as saboteur:

        def more() -> bool:
            now = time.monotonic()
            watcher.look(now)
            return bool(now < end and tally.sent < (now - began) * arguments.rate)

        def ended(outcome: Outcome) -> None:
            if not outcome.code:
                saboteur.answered(outcome.sent)

        while time.monotonic() < end:
            drive(load, payloads, tally, more, arguments.in_flight, ended)
            time.sleep(0.01)  # until the next job is due
    load.close()
    tally.leaked = drain(server)
    return tally, watcher, Counter(incident.kind for incident in saboteur.incidents), began


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--kills-per-minute", type=float, default=1.0)
    parser.add_argument("--spare", action="append", default=[], choices=KINDS, help="kinds that are never killed")
    parser.add_argument("--warm-up", type=float, default=2.0, help="minutes")
    parser.add_argument("--rate", type=float, default=500.0, help="jobs per second")
    parser.add_argument("--in-flight", type=int, default=64, help="at most")
    parser.add_argument("--bytes", type=int, default=4096, help="of each payload")
    parser.add_argument("--look", type=float, default=2.0, help="seconds between looks")
    return parser.parse_args()


def main() -> int:
    """Run and print; 1 where a verdict is bad."""
    arguments = parse()
    print_header()
    os.environ["PARALLEL_INFER_RESTART_BUDGET"] = "1000000"
    os.environ["PARALLEL_INFER_LOG_LEVEL"] = "error"
    with tempfile.TemporaryDirectory(prefix="pi-soak-") as folder:
        model = Path(folder) / "identity.onnx"
        write_identity_model(model, arguments.bytes)
        options = ("--model", f"{MODEL}={model}", "--provider", "cpu", "--decode-workers", "2", "--threads", "1")
        with local_server(*options, "--postprocess-workers", "2", "--instances", "2") as server:
            tally, watcher, kills, began = run(arguments, server)
    print("\n".join(tally.lines()))
    print(f"killed: {', '.join(f'{kind} {count}' for kind, count in sorted(kills.items())) or 'nobody'}\n")
    rest = (arguments.minutes - arguments.warm_up) * 60
    wrong = report(watcher, began + arguments.warm_up * 60, min(60.0, rest / 2))
    wrong += tally.broken(frozenset({"POISON"}))
    print()
    print(
        "\n".join(f"BAD: {text}" for text in wrong)
        or f"nothing grew by more than {NOISE >> 20} MB and {GROWTH:g} %/h, nothing is lost"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
