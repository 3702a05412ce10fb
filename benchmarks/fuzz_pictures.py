"""Pictures that somebody spoilt: each gets an answer or a named error, nobody dies of it but perhaps a decoder.

    python benchmarks/fuzz_pictures.py [--count 100000] [--seed 0]

Small pictures of every format that is taken, with bytes changed, cut out, put in, or the end missing, go to a real
server amid good ones. Good ones must be answered; gateway and dispatcher must not die; no slot may be lost. Ends with
1 where one of that is not so.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.chaos_support.settle import drain
from benchmarks.machine import print_header
from benchmarks.pictures import read_picture
from parallel_infer import Client
from parallel_infer.errors import InferError
from parallel_infer.tools.local_server import local_server

PICTURE = Path(__file__).resolve().parents[1] / "parallel_infer" / "zoo" / "pictures" / "coffee.png"
FORMATS = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "bmp": ".bmp", "tiff": ".tiff", "gif": ".gif"}
MOST_PIXELS = "1000000"
GOOD_EVERY = 50  # one good picture among so many
CHUNK = 2000


def samples() -> list[bytes]:
    """One small picture of each format, and a progressive JPEG."""
    small = cv2.resize(read_picture(PICTURE), (48, 32), interpolation=cv2.INTER_AREA)
    encoded = [cv2.imencode(suffix, small)[1].tobytes() for suffix in FORMATS.values()]
    return [*encoded, cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()]


def spoilt(picture: bytes, chance: random.Random) -> bytes:
    """A picture after one to four changes, half of them near its beginning, where the headers are."""
    changed = bytearray(picture)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(min(len(changed), chance.choice((64, len(changed)))) or 1)
        match chance.randrange(4):
            case 0:
                changed[at : at + 1] = chance.randbytes(1)
            case 1:
                changed[at:at] = chance.randbytes(chance.randint(1, 8))
            case 2:
                del changed[at : at + chance.randint(1, 8)]
            case 3 if chance.random() < 0.2:
                del changed[max(1, at) :]
    return bytes(changed)


def send(address: str, count: int, chance: random.Random) -> tuple[Counter[str], int]:
    """How the spoilt pictures ended, by "answer" or error, and how many good ones among them failed."""
    ends: Counter[str] = Counter()
    failed = sent = 0
    good = samples()
    with Client(address, timeout=60) as client:
        while sent < count:
            pictures = [spoilt(chance.choice(good), chance) for _ in range(min(CHUNK, count - sent))]
            sent += len(pictures)
            places = range(0, len(pictures), GOOD_EVERY)
            mixed = [p for at in places for p in (chance.choice(good), *islice(pictures, at, at + GOOD_EVERY))]
            answers = client.infer_many("classifier", mixed, errors="return")
            for number, answer in enumerate(answers):
                error = isinstance(answer, InferError)
                if number % (GOOD_EVERY + 1) == 0:
                    failed += error
                else:
                    ends[answer.code if isinstance(answer, InferError) else "answer"] += 1
    return ends, failed


def main() -> int:
    """Send and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print_header()
    options = ("--model", "classifier=zoo:classifier", "--max-pixels", MOST_PIXELS, "--log-level", "error")
    os.environ["PARALLEL_INFER_FORMATS"] = ",".join(FORMATS)
    started = time.monotonic()
    with local_server(*options) as server:
        ends, failed = send(server.address, arguments.count, random.Random(arguments.seed))
        leaked = drain(server)
        with Client(server.address) as client:
            restarts = {name: process["restarts"] for name, process in client.status()["processes"].items()}
    print(f"{sum(ends.values())} spoilt pictures in {time.monotonic() - started:.0f} s: {dict(ends)}")
    print(f"good pictures that failed: {failed}; slots not free: {leaked or 0}; restarts: {restarts}")
    deaths = restarts["gateway"] + restarts["dispatcher"]
    return 1 if failed or leaked or deaths or set(ends) - {"answer", "BAD_INPUT", "POISON"} else 0


if __name__ == "__main__":
    sys.exit(main())
