"""Jobs of many threads against one server that is killed, replaced or stopped meanwhile; every one must be answered.

    python tests/container/load.py ADDRESS KEY MODEL PICTURE... --under-way FIFO --until FILE [--least 200]

After the first answers a line is written to FIFO. Each thread sends one picture after the other, until all have sent
--least jobs and FILE exists, and holds each answer against the first one of that picture. A job that was refused
because the server is stopping is sent again, as the documents tell users to. Prints one JSON object: jobs, lost, wrong,
resent. Ends with 1 where a job was lost or an answer was wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from parallel_infer import Answer, Client
from parallel_infer.errors import InferError, ServerStopping

THREADS = 8
TIMEOUT = 120.0  # seconds of a job: more than any restart takes, so that whatever is lost is lost for good
PAUSE = 0.1  # seconds before a refused job is sent again
NEAR = 1.0  # pixels; sums of floating point numbers differ with the size of the batch


def ask(client: Client, model: str, picture: bytes, counts: Counter[str]) -> Answer:
    """The answer to one job. Raises InferError where it is lost."""
    while True:
        try:
            return client.infer(model, picture, timeout=TIMEOUT)
        except ServerStopping:
            counts["resent"] += 1
            time.sleep(PAUSE)


def same(one: Answer, other: Answer) -> bool:
    """Whether two answers to one picture say the same."""
    return one.names == other.names and bool(np.allclose(one.boxes, other.boxes, atol=NEAR))


def work(
    client: Client, model: str, asked: list[tuple[bytes, Answer]], until: Path, least: float, counts: Counter[str]
) -> None:
    """One thread: at least `least` jobs, and on until the file `until` is there."""
    while counts["jobs"] < least or not until.exists():
        for picture, right in asked:
            counts["jobs"] += 1
            try:
                counts["wrong"] += not same(ask(client, model, picture, counts), right)
            except InferError as error:
                counts["lost"] += 1
                print(f"lost: {error.code}: {error}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("key")
    parser.add_argument("model")
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--under-way", type=Path, required=True)
    parser.add_argument("--until", type=Path, required=True)
    parser.add_argument("--least", type=int, default=200)
    given = parser.parse_args()
    pictures = [path.read_bytes() for path in given.pictures]
    counts = [Counter[str]() for _ in range(THREADS)]
    with Client(given.address, given.key or None, TIMEOUT) as client:
        asked = [(picture, ask(client, given.model, picture, Counter())) for picture in pictures]
        given.under_way.write_text("yes\n")
        threads = [
            threading.Thread(target=work, args=(client, given.model, asked, given.until, given.least / THREADS, count))
            for count in counts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    total = sum(counts, Counter[str]())
    print(json.dumps({name: total[name] for name in ("jobs", "lost", "wrong", "resent")}))
    raise SystemExit(bool(total["lost"] or total["wrong"] or not total["jobs"]))


if __name__ == "__main__":
    main()
