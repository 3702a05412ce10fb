"""A server whose stages count their own processor time, for benchmarks/hops.py.

    STAGE_TIMES=FILE python benchmarks/timed_stages.py serve ...

FILE has a float64 for each process id: the seconds of processor time that the stage of that worker has worked, all
threads of an inference together. It has to lie in /dev/shm, where decode workers may write, and to be there before.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stages.pipeline import STAGES

VARIABLE = "STAGE_TIMES"
_SIZE = 8 << 22  # bytes: as many numbers as Linux has process ids; only what is written takes memory


def create(path: Path) -> None:
    """Make the file."""
    with path.open("wb") as file:
        file.truncate(_SIZE)


def stage_times(path: Path) -> memoryview[float]:
    """The file's numbers, float64 [2^22]."""
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("d")


def _counted(work: Callable[..., Any], clock: Callable[[], float]) -> Callable[..., Any]:
    """The same function, whose time by `clock` is added up under the number of this process."""
    times, process = stage_times(Path(os.environ[VARIABLE])), os.getpid()

    def counting(*arguments: Any, **named: Any) -> Any:
        started = clock()
        try:
            return work(*arguments, **named)
        finally:
            times[process] += clock() - started

    return counting


# Each process imports only the stage that it is.
def decode(*arguments: Any) -> object:
    """The stage that decodes, and counts."""
    from stages.decode import Decode

    stage = Decode(*arguments)
    stage.decode = _counted(stage.decode, time.thread_time)  # type: ignore[method-assign]
    return stage


def infer(*arguments: Any) -> object:
    """The stage that infers, and counts."""
    from stages.infer import Infer

    stage = Infer(*arguments)
    stage.run = _counted(stage.run, time.process_time)  # type: ignore[method-assign]
    return stage


def postprocess() -> object:
    """The stage that postprocesses, and counts."""
    from stages.postprocess import Postprocess

    stage = Postprocess()
    stage.answer = _counted(stage.answer, time.thread_time)  # type: ignore[method-assign]
    return stage


if __name__ == "__main__":
    from parallel_infer.cli import main

    STAGES.update({name: f"benchmarks.timed_stages:{name}" for name in STAGES})
    main(prog_name="parallel-infer")
