"""Every object in a folder of pictures as a line of a CSV file. Folders of any size: answers are written as they come.

    python folder_to_csv.py FOLDER found.csv --model detector --address tcp://127.0.0.1:5555

A picture that fails has one line with the error's name in the last column, so that nothing is missing unnoticed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from parallel_infer import Answer, Client
from parallel_infer.errors import InferError

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
HEADING = ("file", "class", "score", "left", "top", "right", "bottom", "error")


def lines(name: str, answer: Answer | InferError) -> Iterator[tuple[object, ...]]:
    """The lines of one picture: one per object, or the one that tells what went wrong."""
    if isinstance(answer, InferError):
        yield name, "", "", "", "", "", "", answer.code
        return
    for label, score, box in zip(answer.names, answer.scores, answer.boxes, strict=True):
        yield name, label, f"{score:.3f}", *(f"{edge:.1f}" for edge in box), ""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """A file to write to that takes its name when it is finished; what was there before stays until then."""
    draft = path.with_name(f".{os.getpid()}.part")
    try:
        with draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Find objects in a folder of pictures, write them to a CSV file.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="detector")
    parser.add_argument("--address", default="tcp://127.0.0.1:5555")
    parser.add_argument("--confidence", type=float, default=0.4)
    given = parser.parse_args()

    paths = sorted(path for path in given.folder.rglob("*") if path.suffix.lower() in PICTURES)
    if any(given.output.exists() and given.output.samefile(path) for path in paths):
        parser.error(f"{given.output} is one of the pictures; give the table another name")
    failed = objects = 0
    with Client(given.address, timeout=30) as client, whole_file(given.output) as file:
        table = csv.writer(file)
        table.writerow(HEADING)
        # `stream` keeps a few pictures under way and gives the answers in order, however many there are.
        for number, answer in client.stream(given.model, paths, in_flight=32, confidence=given.confidence):
            found = list(lines(str(paths[number].relative_to(given.folder)), answer))
            table.writerows(found)
            failed += isinstance(answer, InferError)
            objects += 0 if isinstance(answer, InferError) else len(found)
    print(f"{len(paths)} pictures, {objects} objects, {failed} failed: {given.output}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
