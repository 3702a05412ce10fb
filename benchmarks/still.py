"""A static camera with and without `--skip-still`: what work is left, and whether what comes in is seen.

    .venv/bin/python benchmarks/still.py [--seconds 20] [--threshold 10] [--provider auto]

A recording made from a shipped picture plays like a camera of 720p and 25 frames per second: an empty scene with the
noise of a sensor, into which somebody comes for a tenth of the time. Both ways look at every frame of it. Told are the
frames inferred, the processor time of the server per frame, and in how many frames somebody was seen: with and without
must be the same frames.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.footprint import processor_time
from benchmarks.machine import print_header
from benchmarks.pictures import read_picture
from parallel_infer import Answer
from parallel_infer.tools.local_server import LocalServer, local_server
from parallel_infer.video import Result, Streams, StreamSettings

PICTURE = Path(__file__).resolve().parents[1] / "parallel_infer" / "zoo" / "pictures" / "astronaut.png"
HEIGHT, WIDTH, FPS = 720, 1280, 25
NOISE = 3.0  # levels
ENTRY = 0.5  # seconds in which somebody comes in, and in which somebody leaves


def write_scene(path: Path, seconds: float) -> None:
    """An empty scene; from 45 to 55 % of the time somebody is there, coming in and leaving at the right."""
    empty = np.full((HEIGHT, WIDTH, 3), (200, 180, 160), np.uint8)
    empty[HEIGHT // 2 :] = (90, 100, 110)
    somebody = cv2.resize(read_picture(PICTURE), (480, 600), interpolation=cv2.INTER_AREA)
    generator = np.random.default_rng(1)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    for number in range(round(seconds * FPS)):
        at = number / FPS
        inside = min(at - 0.45 * seconds, 0.55 * seconds - at) / ENTRY
        width = round(somebody.shape[1] * min(1.0, max(0.0, inside)))
        frame = empty.copy()
        frame[100:700, WIDTH - width :] = somebody[:, :width]
        noise = generator.normal(0, NOISE, frame.shape).astype(np.float32)
        writer.write(np.clip(frame + noise, 0, 255).astype(np.uint8))
    writer.release()


class Seen(NamedTuple):
    """What came of one way to watch."""

    answered: int
    still: int
    seconds: float  # of the server's processes, of all cores
    there: set[int]  # frames with somebody


def watch(path: Path, server: LocalServer, settings: StreamSettings) -> Seen:
    """Look at every frame of the recording."""
    began = processor_seconds(server)
    with Streams([str(path)], "detector", server.address, settings=settings) as streams:
        results = [event for event in streams if isinstance(event, Result)]
        tally = streams.tallies[str(path)]
    there = {
        result.frame for result in results if isinstance(result.answer, Answer) and "person" in result.answer.names
    }
    return Seen(tally.answered, tally.still, processor_seconds(server) - began, there)


def processor_seconds(server: LocalServer) -> float:
    """Processor time of all processes of a server so far."""
    return sum(processor_time(process) for process in server.processes())


def main() -> None:
    """Watch the same scene both ways."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=20.0)
    options.add_argument("--threshold", type=float, default=10.0)
    options.add_argument("--provider", default="auto")
    arguments = options.parse_args()
    print_header()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "static.mp4"
        write_scene(path, arguments.seconds)
        with local_server("--model", "detector=zoo:detector", "--provider", arguments.provider) as server:
            every = watch(path, server, StreamSettings())
            some = watch(path, server, StreamSettings(skip_still=arguments.threshold))
    for name, seen in (("every frame", every), ("--skip-still", some)):
        inferred = seen.answered - seen.still
        print(
            f"{name:13} {seen.answered} frames, {inferred} inferred ({inferred / seen.answered:.1%}), "
            f"{1000 * seen.seconds / seen.answered:.2f} ms of processor time of the server per frame, "
            f"somebody in {len(seen.there)} frames"
        )
    missed, more = every.there - some.there, some.there - every.there
    print(f"somebody seen with every frame alone: {sorted(missed)}; with --skip-still alone: {sorted(more)}")


if __name__ == "__main__":
    main()
