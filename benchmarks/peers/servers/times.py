"""No server: what each part of the work costs in this environment, as JSON. Reads its setup and the picture's path."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from work import Setup, Work

T = TypeVar("T")
_PICTURES = 64  # of each measurement


def parts(work: Work, payload: bytes, size: int) -> dict[str, float]:
    """Milliseconds of processor time per picture of each part, in batches of `size`."""
    spent: dict[str, float] = {}

    def counted(name: str, part: Callable[[], T]) -> T:
        started = time.process_time()
        found = part()
        spent[name] = spent.get(name, 0.0) + time.process_time() - started
        return found

    for _ in range(_PICTURES // size):
        frames = [counted("decode", lambda: work.preparation.frame(payload)) for _ in range(size)]
        rows = [counted("resize", lambda frame=frame: work.preparation.resized(frame)) for frame in frames]  # type: ignore[misc]
        batch = counted("batch", lambda rows=rows: work.preparation.batch(rows))  # type: ignore[misc]
        outputs = counted("run", lambda batch=batch: work.run(batch))  # type: ignore[misc]
        counted("answer", lambda outputs=outputs, rows=rows: work.read(outputs, rows))  # type: ignore[misc]
    return {name: seconds / (_PICTURES // size * size) * 1000 for name, seconds in spent.items()}


if __name__ == "__main__":
    setup, picture = Setup.from_environment(), Path(sys.argv[1]).read_bytes()
    once = Work(setup)
    parts(once, picture, setup.batch)
    print(json.dumps({size: parts(once, picture, size) for size in (1, setup.batch)}))
