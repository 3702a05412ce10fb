"""What an open page costs the server: throughput with a page open and without, in turns.

    python benchmarks/page.py [--seconds 5] [--rounds 5] [--browser]

A page is what reads its events and fetches the picture of a live source every two seconds, as the browser does, in a
process of its own; with --browser it is headless Chromium itself, which takes processor time for its drawing too. A
camera of 10 frames of 1280x720 a second sends all the time, page or not. Throughput is of a model that does nothing,
at 64 in flight, and of the shipped detector with pictures of 1280x720 at 32. The last line is the processor time of
all processes of the server while only the camera sends.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import socket
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

from benchmarks.machine import print_header
from benchmarks.nothing_model import write_nothing_model
from parallel_infer import Client
from parallel_infer.tools.local_server import LocalServer, local_server

SIZE = 100  # bytes of the payload of the model that does nothing
WIDTH, HEIGHT = 1280, 720
CAMERA = "gate"
ALONE = "processor, ms/s"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


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
        while not done.is_set():
            found.page.wait_for_timeout(100)


@contextlib.contextmanager
def page(address: str, look: Callable[[str, Any, Any], None]) -> Iterator[None]:
    """A page that is open."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=look, args=(address, ready, done))
    process.start()
    try:
        if not ready.wait(60):
            raise SystemExit("the page did not open")
        yield
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


def spent(server: LocalServer, seconds: float) -> float:
    """Milliseconds of processor time that the server's processes take in a second, while it has the camera alone."""

    def all_of_them() -> float:
        ticks = 0
        for pid in server.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # in user mode, in the kernel
        return 1000 * ticks / os.sysconf("SC_CLK_TCK")

    before, started = all_of_them(), time.perf_counter()
    time.sleep(seconds)
    return (all_of_them() - before) / (time.perf_counter() - started)


def measure(seconds: float, rounds: int, look: Callable[[str, Any, Any], None]) -> dict[str, tuple[float, float]]:
    """By load: the medians without a page and with one; whichever comes first changes from round to round."""
    rng = np.random.default_rng(1)
    smooth = cv2.resize(rng.integers(0, 255, (9, 16, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    jpeg = cv2.imencode(".jpg", smooth)[1].tobytes()
    loads = {"nothing": ({"x": np.zeros(SIZE, np.uint8)}, 64), "detector": (jpeg, 32)}
    found: dict[str, dict[bool, list[float]]] = {name: {False: [], True: []} for name in (*loads, ALONE)}
    with tempfile.TemporaryDirectory(prefix="pi-bench-") as folder:
        path, http = Path(folder) / "nothing.onnx", f"127.0.0.1:{free_port()}"
        write_nothing_model(path, SIZE)
        options = (
            "--provider",
            "cpu",
            "--http",
            http,
            "--model",
            f"nothing={path}",
            "--model",
            "detector=zoo:detector",
        )
        with local_server(*options) as server, Client(server.address, timeout=60.0) as client, camera(server.address):
            for number in range(rounds):
                for is_open in (True, False) if number % 2 else (False, True):
                    with page(f"http://{http}", look) if is_open else contextlib.nullcontext():
                        for model, (payload, in_flight) in loads.items():
                            found[model][is_open].append(rate(client, model, payload, in_flight, seconds))
                        found[ALONE][is_open].append(spent(server, seconds))
    return {m: (statistics.median(rates[False]), statistics.median(rates[True])) for m, rates in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="of all measurements, with a page and without")
    parser.add_argument("--browser", action="store_true", help="open the page in headless Chromium")
    arguments = parser.parse_args()
    print_header()
    figures = measure(arguments.seconds, arguments.rounds, browse if arguments.browser else read_events)
    print(f"{'':22s} {'no page':>12s} {'page':>12s} {'ratio':>7s}")
    for name, (without, with_page) in figures.items():
        print(f"{name + (', jobs/s' if name != ALONE else ''):22s} {without:12,.1f} {with_page:12,.1f}", end=" ")
        print(f"{with_page / without:7.3f}")


if __name__ == "__main__":
    main()
