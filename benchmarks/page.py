"""What an open page costs the server: throughput with a page open and without, in turns.

    python benchmarks/page.py [--seconds 5] [--rounds 5] [--browser]

A page is what reads its events and fetches the picture of a live source every two seconds, as the browser does, in a
process of its own; with --browser it is headless Chromium itself, which takes processor time for its drawing too. A
camera of 10 frames of 1280x720 a second sends all the time, page or not. Throughput is of a model that does nothing,
at 64 in flight, and of the shipped detector with pictures of 1280x720 at 32. The other lines are processor time, of
each process of the server and of whoever looks, while the camera and 50 small jobs a second are all there is to do.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import free_port, print_header
from benchmarks.nothing_model import write_nothing_model
from parallel_infer import Client
from parallel_infer.tools.local_server import LocalServer, local_server

SIZE = 100  # bytes of the payload of the model that does nothing
WIDTH, HEIGHT = 1280, 720
CAMERA = "gate"
PACE = 0.02  # seconds between two small jobs while processor time is counted
LOOKING = "the page"


# --- who looks --------------------------------------------------------------------------------------------------------


def read_events(address: str, ready: Any, done: Any) -> None:
    """A page without a browser."""

    def pictures() -> None:
        name = urllib.parse.quote(CAMERA)
        while not done.wait(2.0):
            urllib.request.urlopen(f"{address}/page/source?name={name}", timeout=10).read()  # noqa: S310 - our own

    threading.Thread(target=pictures, daemon=True).start()
    with urllib.request.urlopen(f"{address}/page/live", timeout=30) as stream:  # noqa: S310 - our own
        for line in stream:
            if line.startswith(b"event: state"):
                ready.set()
            if done.is_set():
                return


def browse(address: str, ready: Any, done: Any) -> None:
    """A page in headless Chromium, scrolled to the live sources."""
    from tests.doors.browser import browser, tab

    with browser() as started, tab(started, address, viewport={"width": 1440, "height": 900}) as found:
        found.wait_for("html[data-state=live]")
        found.page.evaluate("document.querySelector('#sources').scrollIntoView()")
        ready.set()
        done.wait()  # what drives the browser sleeps too


@contextlib.contextmanager
def page(address: str, look: Callable[[str, Any, Any], None]) -> Iterator[int]:
    """A page that is open; the process that looks."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=look, args=(address, ready, done))
    process.start()
    try:
        if not ready.wait(60):
            raise SystemExit("the page did not open")
        yield process.pid or 0
    finally:
        done.set()
        process.join(30)
        process.kill()


# --- load -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def camera(address: str) -> Iterator[None]:
    """A live source of 10 frames a second."""
    stop = threading.Event()
    frame = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)

    def frames() -> Iterator[Any]:
        while not stop.wait(0.1):
            yield frame

    def send() -> None:
        with Client(address) as client:
            for _ in client.stream("detector", frames(), source=CAMERA, drop="latest"):
                pass

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def rate(client: Client, model: str, payload: Any, in_flight: int, seconds: float) -> float:
    """Jobs per second."""
    client.infer_many(model, [payload] * in_flight, in_flight=in_flight)
    jobs, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        client.infer_many(model, [payload] * 10 * in_flight, in_flight=in_flight)
        jobs += 10 * in_flight
    return jobs / spent


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [below for child in task.read_text().split() for below in descendants(int(child))]
    return found


def looking(pid: int) -> list[int]:
    """The processes of who looks: the browser's, without those of the program that opened it; or that program."""
    found = descendants(pid)
    return [each for each in found if "chrom" in Path(f"/proc/{each}/comm").read_text()] or found


def milliseconds(pid: int) -> float:
    """The processor time that a process has taken, all its threads together; 0 where it has ended."""
    with contextlib.suppress(OSError):
        tasks = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(int(task.split()[0]) for task in tasks) / 1e6  # Linux, Documentation/scheduler/sched-stats
    return 0.0


def spent(server: LocalServer, client: Client, viewer: int | None, seconds: float) -> dict[str, float]:
    """Milliseconds of processor time in a second, by process, while there is little to do."""
    named = {pid: Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").split()[-1] for pid in server.processes()}
    named |= dict.fromkeys(looking(viewer), LOOKING) if viewer else {}
    before, started = {pid: milliseconds(pid) for pid in named}, time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        client.infer("nothing", {"x": np.zeros(SIZE, np.uint8)})
        time.sleep(PACE)
    found = dict.fromkeys([*named.values(), LOOKING], 0.0)
    for pid, name in named.items():
        found[name] += (milliseconds(pid) - before[pid]) / took
    return found


def measure(seconds: float, rounds: int, look: Callable[[str, Any, Any], None]) -> dict[str, tuple[float, float]]:
    """By load and process: the medians without a page and with one; whichever is first changes from round to round."""
    rng = np.random.default_rng(1)
    smooth = cv2.resize(rng.integers(0, 255, (9, 16, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    jpeg = cv2.imencode(".jpg", smooth)[1].tobytes()
    loads = {"nothing": ({"x": np.zeros(SIZE, np.uint8)}, 64), "detector": (jpeg, 32)}
    found: dict[str, dict[bool, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="pi-bench-") as folder:
        path, http = Path(folder) / "nothing.onnx", f"127.0.0.1:{free_port()}"
        write_nothing_model(path, SIZE)
        models = (f"nothing={path}", "detector=zoo:detector")
        options = ("--provider", "cpu", "--http", http, *(word for model in models for word in ("--model", model)))
        with local_server(*options) as server, Client(server.address, timeout=60.0) as client, camera(server.address):
            for number in range(rounds):
                for is_open in (True, False) if number % 2 else (False, True):
                    with page(f"http://{http}", look) if is_open else contextlib.nullcontext() as viewer:
                        figures = {
                            f"{model}, jobs/s": rate(client, model, payload, in_flight, seconds)
                            for model, (payload, in_flight) in loads.items()
                        }
                        times = spent(server, client, viewer, seconds)
                    for name, figure in (figures | {f"{name}, ms/s": took for name, took in times.items()}).items():
                        found.setdefault(name, {False: [], True: []})[is_open].append(figure)
    return {name: (statistics.median(rates[False]), statistics.median(rates[True])) for name, rates in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="of all measurements, with a page and without")
    parser.add_argument("--browser", action="store_true", help="open the page in headless Chromium")
    arguments = parser.parse_args()
    print_header()
    figures = measure(arguments.seconds, arguments.rounds, browse if arguments.browser else read_events)
    print(f"{'':26s} {'no page':>12s} {'page':>12s} {'ratio':>7s}")
    for name, (without, with_page) in figures.items():
        ratio = f"{with_page / without:7.3f}" if without else ""
        print(f"{name:26s} {without:12,.1f} {with_page:12,.1f} {ratio}")


if __name__ == "__main__":
    main()
