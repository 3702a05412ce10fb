"""Stalls: is anybody refused or dropped who had time? A start, stopped workers, other programs, a suspended server.

    python benchmarks/stalls.py [--rounds 1] [--scenes start,workers,bursts,server]
        [--model detector] [--options '--instances 1'] [--pause 40]

32 jobs are in flight at any time, each with 5 to 8 seconds, against the shipped detector:

- start: from the moment a server is ready;
- workers: all infer workers are stopped (SIGSTOP) for 2 s, twice;
- bursts: four busy loops for 3 s, twice;
- server: every process of the server is stopped for `--pause` seconds, the client is not.

A job had time where at least 3 of its seconds lay outside the stop. Ends with 1 where one that had time was refused,
dropped, ran out of time, or where a worker was killed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import queue
import random
import shlex
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.chaos_support.faults import kind_of, processes
from benchmarks.machine import print_header
from parallel_infer import Client
from parallel_infer.client.futures import InferFuture
from parallel_infer.errors import InferError
from parallel_infer.tools.bench.payloads import read_pictures, shipped_pictures
from parallel_infer.tools.local_server import LocalServer, local_server

IN_FLIGHT, TIMEOUTS = 32, (5.0, 8.0)
ENOUGH = 3.0  # seconds; what is in flight takes one or two
AGAIN = 0.01  # seconds after a refusal


@dataclass
class Seen:
    """What became of the jobs of one scene: (sent, ended, seconds it had, code of its error or "")."""

    jobs: list[tuple[float, float, float, str]] = field(default_factory=list)
    stops: list[tuple[float, float]] = field(default_factory=list)
    restarts: int = 0

    def had_time(self, sent: float, timeout: float) -> bool:
        """Whether enough of a job's seconds lay outside of every stop."""
        stopped = sum(max(0.0, min(end, sent + timeout) - max(start, sent)) for start, end in self.stops)
        return timeout - stopped >= ENOUGH

    def wronged(self) -> Counter[str]:
        """Errors of jobs that had time, by what happened to them."""
        found: Counter[str] = Counter()
        for sent, ended, timeout, code in self.jobs:
            if code and self.had_time(sent, timeout):
                early = code == "DEADLINE_EXCEEDED" and ended < sent + timeout - 0.1
                found["dropped" if early else code] += 1
        return found


def ask(server: LocalServer, seen: Seen, over: threading.Event) -> None:
    """Keep jobs in flight until it is over, and wait for the last."""
    chance = random.Random(1)
    with shipped_pictures() as folder:
        pictures = read_pictures(folder)
    ended: queue.SimpleQueue[tuple[float, float, InferFuture]] = queue.SimpleQueue()
    with Client(server.address) as client:

        def send() -> None:
            timeout, sent = chance.uniform(*TIMEOUTS), time.monotonic()
            client.submit(
                server.models[0],
                chance.choice(pictures),
                timeout=timeout,
                callback=lambda future: ended.put((sent, timeout, future)),
            )

        for _ in range(IN_FLIGHT):
            send()
        left = IN_FLIGHT
        while left:
            sent, timeout, future = ended.get()
            error = future.exception()
            code = "" if error is None else error.code if isinstance(error, InferError) else type(error).__name__
            seen.jobs.append((sent, time.monotonic(), timeout, code))
            if code == "RESOURCE_UNAVAILABLE":
                time.sleep(AGAIN)
            if over.is_set():
                left -= 1
            else:
                send()


@contextlib.contextmanager
def stopped(pids: list[int], seen: Seen) -> Iterator[None]:
    """These processes do not run meanwhile."""
    began = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        seen.stops.append((began, time.monotonic()))


def spin() -> None:
    """Another program that wants a core."""
    while True:
        pass


def start(server: LocalServer, seen: Seen, pause: float) -> None:
    """Nothing but the first seconds."""
    time.sleep(6.0)


def workers(server: LocalServer, seen: Seen, pause: float) -> None:
    """All infer workers stand still, twice."""
    for _ in range(2):
        time.sleep(4.0)
        with stopped([pid for place, pid in processes(server).items() if kind_of(place) == "infer"], seen):
            time.sleep(2.0)
    time.sleep(5.0)


def bursts(server: LocalServer, seen: Seen, pause: float) -> None:
    """Four busy loops beside the server, twice."""
    spawn = multiprocessing.get_context("spawn")
    for _ in range(2):
        time.sleep(3.0)
        loops = [spawn.Process(target=spin, daemon=True) for _ in range(4)]
        for loop in loops:
            loop.start()
        time.sleep(3.0)
        for loop in loops:
            loop.kill()
            loop.join()
    time.sleep(5.0)


def suspended(server: LocalServer, seen: Seen, pause: float) -> None:
    """Nobody of the server runs."""
    time.sleep(4.0)
    with stopped(server.processes(), seen):
        time.sleep(pause)
    time.sleep(12.0)


SCENES: dict[str, Callable[[LocalServer, Seen, float], None]] = {
    "start": start,
    "workers": workers,
    "bursts": bursts,
    "server": suspended,
}


def play(scene: str, model: str, options: list[str], pause: float) -> Seen:
    """One scene with a server of its own."""
    seen, over = Seen(), threading.Event()
    with local_server("--model", f"{model}=zoo:{model}", "--log-level", "error", *options) as server:
        asking = threading.Thread(target=ask, args=(server, seen, over))
        asking.start()
        SCENES[scene](server, seen, pause)
        over.set()
        asking.join()
        with Client(server.address, timeout=30.0) as client:
            seen.restarts = sum(process["restarts"] for process in client.status()["processes"].values())
    return seen


def main() -> int:
    """Play and print; 1 where somebody was wronged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, help="of each scene")
    parser.add_argument("--scenes", default=",".join(SCENES))
    parser.add_argument("--model", default="detector", help="one of the shipped models")
    parser.add_argument("--pause", type=float, default=40.0, help="seconds for which the server is stopped")
    parser.add_argument("--options", default="", help="more options of serve")
    arguments = parser.parse_args()
    print_header()
    print(f"{'scene':10s} {'jobs':>6s} {'answered':>9s} {'a second':>9s} {'no time':>8s} {'killed':>7s}   wronged")
    bad = 0
    for scene in arguments.scenes.split(",") * arguments.rounds:
        seen = play(scene, arguments.model, shlex.split(arguments.options), arguments.pause)
        wronged, answered = seen.wronged(), sum(not code for *_, code in seen.jobs)
        lost = len(seen.jobs) - answered - sum(wronged.values())
        running = seen.jobs[-1][1] - seen.jobs[0][0] - sum(end - begin for begin, end in seen.stops)
        told = ", ".join(f"{code} {count}" for code, count in wronged.items()) or "0"
        print(
            f"{scene:10s} {len(seen.jobs):6d} {answered:9d} {answered / running:9.0f} {lost:8d} {seen.restarts:7d}   "
            f"{told}",
            flush=True,
        )
        bad += sum(wronged.values()) + seen.restarts
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
