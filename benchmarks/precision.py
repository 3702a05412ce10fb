"""How answers move with the provider and precision: the same pictures, two servers, one after the other.

    python benchmarks/precision.py [--models detector,segmenter,classifier] [--pictures FOLDER | --jpeg]
                                   [--options "--provider openvino"] [--against "--provider cpu"]

Without a folder, the shipped pictures in several sizes, mirrored and darkened, as PNG; with `--jpeg` parts of them as
JPEGs of 1280x720, which `--options "--decode fast" --against "--decode exact"` is about. For objects: how many of the
first server's the second finds again (same class, IoU above 0.5), how far boxes and scores of those moved; for classes:
how often the best one is the same.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_header
from benchmarks.pictures import read_picture
from parallel_infer import Answer, Client
from parallel_infer.tools.local_server import local_server

PICTURES = Path(__file__).resolve().parents[1] / "parallel_infer" / "zoo" / "pictures"
FORMATS = (".jpg", ".jpeg", ".png", ".webp")


def encoded(folder: Path | None, jpeg: bool) -> list[bytes]:
    """What is sent."""
    if jpeg:
        return list(_jpegs())
    if folder is not None:
        return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix.lower() in FORMATS]
    return list(_variants())


def _variants() -> Iterator[bytes]:
    for path in sorted(PICTURES.glob("*.png")):
        picture = read_picture(path)
        for size, mirrored, light in product((1.0, 0.8, 0.6, 0.45), (False, True), (1.0, 0.7)):
            frame = cv2.resize(picture, None, fx=size, fy=size, interpolation=cv2.INTER_AREA)
            frame = (frame[:, ::-1] if mirrored else frame) * light
            yield cv2.imencode(".png", frame.astype(np.uint8))[1].tobytes()


def _jpegs() -> Iterator[bytes]:
    random = np.random.default_rng(1)
    for path in sorted(PICTURES.glob("*.png")):
        picture = np.asarray(cv2.imread(str(path)))
        height, width = picture.shape[:2]
        for number in range(16):
            columns = int(width * random.uniform(0.6, 1.0))
            rows = min(height, columns * 9 // 16)
            left, top = random.integers(0, width - columns + 1), random.integers(0, height - rows + 1)
            part = picture[top : top + rows, left : left + columns][:, :: -1 if number % 2 else 1]
            frame = cv2.resize(part, (1280, 720), interpolation=cv2.INTER_CUBIC)
            yield cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def answers(model: str, options: str, pictures: list[bytes]) -> list[Answer]:
    with (
        local_server("--model", f"m=zoo:{model}", *shlex.split(options)) as server,
        Client(server.address, timeout=60.0) as client,
    ):
        found = list(client.infer_many("m", pictures))
        return [answer for answer in found if isinstance(answer, Answer)]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2."""
    common = np.prod(np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0))
    return float(common / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common))


def of_objects(first: list[Answer], second: list[Answer]) -> str:
    overlaps, moved = [], []
    for one, other in zip(first, second, strict=True):
        for box, score, name in zip(one.boxes, one.scores, one.names, strict=True):
            pairs = [
                (overlap(box, place), abs(float(score - value)))
                for place, value, again in zip(other.boxes, other.scores, other.names, strict=True)
                if again == name
            ]
            best = max(pairs, default=(0.0, 0.0))
            if best[0] > 0.5:
                overlaps.append(best[0])
                moved.append(best[1])
    total = sum(map(len, first))
    return (
        f"{len(overlaps)} of {total} objects again ({sum(map(len, second))} in all); IoU p50 "
        f"{np.median(overlaps):.3f}, p5 {np.percentile(overlaps, 5):.3f}; scores moved by p50 {np.median(moved):.4f}, "
        f"p95 {np.percentile(moved, 95):.4f}"
    )


def of_classes(first: list[Answer], second: list[Answer]) -> str:
    same = sum(one.names[0] == other.names[0] for one, other in zip(first, second, strict=True))
    moved = [abs(float(one.scores[0] - other.scores[0])) for one, other in zip(first, second, strict=True)]
    return f"the best class is the same in {same} of {len(first)}; its score moved by p50 {np.median(moved):.4f}"


def main() -> None:
    """Ask both servers and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="detector,segmenter,classifier")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--jpeg", action="store_true", help="the shipped pictures as JPEGs of 1280x720")
    parser.add_argument("--options", default="--provider openvino", help="of the server that is judged")
    parser.add_argument("--against", default="--provider cpu", help="of the one it is compared with")
    arguments = parser.parse_args()
    print_header()
    pictures = encoded(arguments.pictures, arguments.jpeg)
    for model in arguments.models.split(","):
        first, second = (answers(model, options, pictures) for options in (arguments.against, arguments.options))
        compare = of_classes if first[0].task == "classify" else of_objects
        print(f"{model}: {compare(first, second)}")


if __name__ == "__main__":
    main()
