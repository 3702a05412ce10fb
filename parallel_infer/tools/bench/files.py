"""Runs in files: JSON, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import msgspec

from parallel_infer.errors import ConfigError
from parallel_infer.files.outputs import write_whole
from parallel_infer.tools.bench.figures import Run
from parallel_infer.wrong_fields import explained


def read_run(path: Path) -> Run:
    """A saved run. Raises ConfigError for a file that holds none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Run)
    except OSError as error:
        raise ConfigError(f"the saved run {path} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is no run that `parallel-infer bench --save` wrote: {explained(error)}") from error


def as_json(run: Run) -> bytes:
    """The run as it is saved and as `--json` prints it."""
    return msgspec.json.format(msgspec.json.encode(run), indent=2)


def save_run(path: Path, run: Run) -> None:
    """Write a run. Raises ConfigError where that cannot be done."""
    write_whole(path, as_json(run) + b"\n")
