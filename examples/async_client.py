"""Many pictures with asyncio: a folder at a time, and the answers in order.

python async_client.py FOLDER --model detector --address tcp://127.0.0.1:5555
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from parallel_infer import Answer, AsyncClient
from parallel_infer.errors import InferError

PICTURES = {".jpg", ".jpeg", ".png", ".webp"}


async def run(paths: list[Path], model: str, address: str) -> int:
    """Print one line per picture; returns how many failed."""
    async with AsyncClient(address, timeout=30) as client:
        answers = await client.infer_many(model, paths, errors="return")
    for path, answer in zip(paths, answers, strict=True):
        print(f"{path.name}: {describe(answer)}")
    return sum(isinstance(answer, InferError) for answer in answers)


def describe(answer: Answer | InferError) -> str:
    """What was found, or why nothing was."""
    if isinstance(answer, InferError):
        return f"{answer.code}: {answer}"
    found = [f"{name} {score:.2f}" for name, score in zip(answer.names, answer.scores, strict=True)]
    return ", ".join(found) or "nothing"


def main() -> int:
    parser = argparse.ArgumentParser(description="Send a folder of pictures, print what was found.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="detector")
    parser.add_argument("--address", default="tcp://127.0.0.1:5555")
    given = parser.parse_args()
    paths = sorted(path for path in given.folder.iterdir() if path.suffix.lower() in PICTURES)
    return 1 if asyncio.run(run(paths, given.model, given.address)) else 0


if __name__ == "__main__":
    raise SystemExit(main())
