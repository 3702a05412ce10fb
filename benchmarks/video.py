"""Live video: how old results are, what is lost, and whether sources get equal shares.

    python benchmarks/video.py [--seconds 20] [--provider auto]

First four 720p sources of 25 frames per second with the shipped detector, which may well be too slow for all: age of
results, frames answered and dropped per source, and each source's part of a fair share. Then one 1080p source of 30
frames per second with the shipped classifier: how many frames are lost. The sources are recordings made from the
shipped pictures (moving crops) that play like cameras. Last the same 1080p source beside another client that keeps 32
pictures in flight through the detector: does a flood cost a live stream its frames?
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_header
from benchmarks.pictures import read_picture
from parallel_infer import Client
from parallel_infer.tools.local_server import local_server
from parallel_infer.video import Change, Source, SourceKind, SourceState, Streams

PICTURES = Path(__file__).resolve().parents[1] / "parallel_infer" / "zoo" / "pictures"
SOURCES = 4
TOLERANCE = 0.1  # of a fair share


def write_video(path: Path, height: int, width: int, fps: int, seconds: float, start: int) -> None:
    """Crops of an enlarged shipped picture that move with every frame."""
    files = sorted(PICTURES.glob("*.png"))
    picture = read_picture(files[start % len(files)])
    scale = 1.25 * max(height / picture.shape[0], width / picture.shape[1])
    picture = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    for number in range(round(seconds * fps)):
        top, left = (2 * number) % (picture.shape[0] - height), (3 * number) % (picture.shape[1] - width)
        writer.write(np.ascontiguousarray(picture[top : top + height, left : left + width]))
    writer.release()


def watch(paths: list[Path], model: str, address: str) -> dict[str, Any]:
    """Play recordings as live sources to their end; what became of their frames."""
    sources = [Source(path.stem, SourceKind.REALTIME, str(path)) for path in paths]
    with Streams(sources, model, address) as streams:
        for event in streams:
            if isinstance(event, Change) and event.state is SourceState.FAILED:
                raise SystemExit(f"{event.source} failed: {event.message}")
        tallies = streams.tallies
    ages = np.concatenate([np.array(tally.ages) for tally in tallies.values()])
    share = sum(tally.answered for tally in tallies.values()) / len(tallies)
    return {
        "age p50 ms": float(np.percentile(ages, 50)) * 1000,
        "age p99 ms": float(np.percentile(ages, 99)) * 1000,
        "sources": {
            name: {
                **tally.counts(),
                "age p50 ms": (tally.age(50) or 0) * 1000,
                "age p99 ms": (tally.age(99) or 0) * 1000,
                "share": tally.answered / share,
                "lost %": 100 * (tally.frames - tally.answered) / tally.frames,
            }
            for name, tally in tallies.items()
        },
    }


def flood(address: str, running: Event, done: Event) -> None:
    """Keep 32 pictures in flight through the detector until `done`."""
    pictures = [cv2.imencode(".jpg", read_picture(path))[1].tobytes() for path in sorted(PICTURES.glob("*.png"))]
    with Client(address, timeout=60) as client:
        while not done.is_set():
            client.infer_many("detector", pictures * 32, in_flight=32, errors="return")
            running.set()


@contextlib.contextmanager
def flooded(address: str) -> Iterator[None]:
    """A flood, under way, from a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    running, done = spawn.Event(), spawn.Event()
    process = spawn.Process(target=flood, args=(address, running, done))
    process.start()
    try:
        if not running.wait(60):
            raise SystemExit("the flood did not begin within a minute")
        yield
    finally:
        done.set()
        process.join()


def measure(seconds: float, options: list[str]) -> dict[str, Any]:
    """All figures, each with a server of its own."""
    with tempfile.TemporaryDirectory(prefix="pi-bench-") as folder:
        many = [Path(folder) / f"camera-{number}.mp4" for number in range(SOURCES)]
        for number, path in enumerate(many):
            write_video(path, 720, 1280, 25, seconds, number)
        one = Path(folder) / "camera-1080p.mp4"
        write_video(one, 1080, 1920, 30, seconds, 0)
        with local_server("--model", "detector=zoo:detector", *options) as server:
            figures = {"4 x 720p at 25 fps, detector": watch(many, "detector", server.address)}
        with local_server("--model", "classifier=zoo:classifier", *options) as server:
            figures["1 x 1080p at 30 fps, classifier"] = watch([one], "classifier", server.address)
        both = ("--model", "classifier=zoo:classifier", "--model", "detector=zoo:detector")
        with local_server(*both, *options) as server, flooded(server.address):
            name = "1 x 1080p at 30 fps, classifier, beside 32 in flight through the detector"
            figures[name] = watch([one], "classifier", server.address)
    return figures


def print_figures(title: str, figures: dict[str, Any]) -> None:
    print(f"{title}: age of results p50 {figures['age p50 ms']:.0f} ms, p99 {figures['age p99 ms']:.0f} ms")
    for name, row in figures["sources"].items():
        print(
            f"  {name:14s} {row['frames']:5d} frames {row['answered']:5d} answered {row['dropped']:5d} dropped "
            f"({row['lost %']:.1f} % lost), age p50 {row['age p50 ms']:.0f} ms p99 {row['age p99 ms']:.0f} ms, "
            f"{row['share']:.2f} of a fair share"
        )
    shares = [row["share"] for row in figures["sources"].values()]
    if len(shares) > 1:
        fair = all(abs(share - 1) <= TOLERANCE for share in shares)
        print(f"  every source within {TOLERANCE:.0%} of a fair share: {'yes' if fair else 'NO'}")
    print()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the recordings")
    parser.add_argument("--provider", default="auto", help="of the server")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    arguments = parser.parse_args()
    if not arguments.json:
        print_header()
    figures = measure(arguments.seconds, ["--provider", arguments.provider])
    if arguments.json:
        print(json.dumps(figures))
        return
    for title, found in figures.items():
        print_figures(title, found)


if __name__ == "__main__":
    main()
