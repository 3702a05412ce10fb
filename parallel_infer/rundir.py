"""The run's folder for internal sockets: mode 0700, named after the run, removed with it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from parallel_infer.errors import ConfigError
from parallel_infer.segment import alive

_LONGEST = 80  # characters; an ipc address may have 107 in all


def _base() -> Path:
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    if len(str(folder)) > _LONGEST:
        folder = Path("/tmp")
    return folder / f"parallel-infer-{os.getuid()}"


def make_run_directory(run: str) -> Path:
    """A fresh folder only this user can enter. Raises ConfigError where somebody else sits on the name."""
    base = _base()
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = base.stat()
    if owner.st_uid != os.getuid() or owner.st_mode & 0o077 or base.is_symlink():
        raise ConfigError(f"{base} is not a private folder of this user; remove it or set XDG_RUNTIME_DIR")
    folder = base / run
    folder.mkdir(mode=0o700)
    return folder


def sweep_directories() -> None:
    """Remove the folders of runs that are gone."""
    base = _base()
    if base.is_dir() and base.stat().st_uid == os.getuid():
        for folder in base.iterdir():
            if not alive(folder.name):
                shutil.rmtree(folder, ignore_errors=True)
