"""Where one picture's time goes when nothing else is under way: each stage, and the waits between them.

    python benchmarks/waits.py [--model detector] [--count 300]

The wait between stages is the total inside the server less decoding, inference and postprocessing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_header
from benchmarks.pictures import read_picture
from parallel_infer import Client
from parallel_infer.tools.local_server import local_server

PICTURE = Path(__file__).resolve().parents[1] / "parallel_infer" / "zoo" / "pictures" / "astronaut.png"
WORK = ("decode", "infer", "postprocess")


def jpeg_720p() -> bytes:
    """The sample picture as a 1280x720 JPEG."""
    frame = cv2.resize(read_picture(PICTURE), (1280, 720))
    return bytes(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="detector", help="a model of the zoo")
    parser.add_argument("--count", type=int, default=300, help="pictures, one after the other")
    arguments = parser.parse_args()
    print_header()
    picture = jpeg_720p()
    figures: dict[str, list[float]] = {}
    with (
        local_server("--model", f"{arguments.model}=zoo:{arguments.model}") as server,
        Client(server.address, timeout=30) as client,
    ):
        for number in range(arguments.count + 20):
            started = time.perf_counter()
            timing = dict(client.infer(arguments.model, picture).timing)
            timing["client's round trip"] = time.perf_counter() - started
            timing["waits between stages"] = timing["total"] - sum(timing[stage] for stage in WORK)
            if number >= 20:
                for name, seconds in timing.items():
                    figures.setdefault(name, []).append(seconds * 1000)
    print(f"{'720p JPEG, one in flight':24s} {'p50 ms':>8s} {'p90 ms':>8s} {'p99 ms':>8s}")
    for name, values in figures.items():
        cuts = statistics.quantiles(values, n=100)
        print(f"{name:24s} {cuts[49]:8.2f} {cuts[89]:8.2f} {cuts[98]:8.2f}")


if __name__ == "__main__":
    main()
