"""What a run has on this machine: its mark and segments, its folder of sockets, its copies of model files."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from parallel_infer.config.schema import ServerConfig
from parallel_infer.model_files.store import ModelStore, sweep_copies
from parallel_infer.process.rundir import make_run_directory, remove_directory, sweep_directories
from parallel_infer.shm.segment import RunMark, sweep

log = logging.getLogger(__name__)


class Run(NamedTuple):
    """One run of a server."""

    mark: RunMark
    folder: Path
    store: ModelStore


@contextlib.contextmanager
def new_run(config: ServerConfig) -> Iterator[Run]:
    """Remove what dead runs left, and make a run; at the end nothing of it stays. Raises ConfigError."""
    for dead in sweep():
        log.info("removed what a dead run left in shared memory (%s)", dead)
    sweep_directories()
    sweep_copies(config.model_copies)
    with contextlib.ExitStack() as ends:
        mark = RunMark()
        ends.callback(mark.remove)
        folder = make_run_directory(mark.run)
        ends.callback(remove_directory, folder)
        store = ModelStore(mark.run, config.model_copies, folder)
        ends.callback(store.remove)
        yield Run(mark, folder, store)
