"""Private folders for sockets: mode 0700, in the first place that can hold one.

That is XDG_RUNTIME_DIR, TMPDIR, /tmp, /var/tmp or /dev/shm, whichever is there, is this user's to write to and leaves
room for a socket's name. After `su` or `sudo` XDG_RUNTIME_DIR is often another user's, in a container it is missing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from parallel_infer.errors import ConfigError
from parallel_infer.files.private_folders import make_held, make_private, sweep
from parallel_infer.shm.segment import alive

LONGEST = 80  # bytes of the place; an ipc address may have 107 in all
_RUNS = f"parallel-infer-{os.getuid()}"
_LOCAL = f"{_RUNS}-local"  # apart, because older versions take everything in the former for runs
_VARIABLES = ("XDG_RUNTIME_DIR", "TMPDIR")
USUAL = ("/tmp", "/var/tmp", "/dev/shm")
_locks: dict[Path, int] = {}  # descriptors of the folders that this process made
log = logging.getLogger(__name__)


def make_run_directory(run: str) -> Path:
    """A fresh folder of a run that only this user can enter. Raises ConfigError where nowhere one can be made.

    It stays in use, as `sweep_directories` sees it, until `remove_directory` or the end of this process.
    """
    return _make(_RUNS, run)


@contextlib.contextmanager
def socket_directory() -> Iterator[Path]:
    """The same for the socket of a server that is started for a while."""
    folder = _make(_LOCAL, secrets.token_hex(4))
    try:
        yield folder
    finally:
        remove_directory(folder)


def remove_directory(folder: Path) -> None:
    """Remove a folder that this process made."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(KeyError):
        os.close(_locks.pop(folder))


def sweep_directories() -> None:
    """Remove the folders of runs that are gone, wherever they were made."""
    for place in _places():
        sweep(place / _RUNS, is_spared=alive)
        sweep(place / _LOCAL)


def _make(base: str, name: str) -> Path:
    refused = []
    for place in _places():
        try:
            folder = place / base / name
            make_private(folder.parent)
            _locks[folder] = make_held(folder)
        except OSError as error:
            shown = str(place).encode(errors="backslashreplace").decode()  # a name need not be UTF-8
            refused.append(f"{shown} ({error.strerror})")
            continue
        if refused:
            log.info("the folder of this run is %s, because it cannot be in %s", folder, ", ".join(refused))
        return folder
    raise ConfigError(
        f"no private folder for sockets can be made in {', '.join(refused)}; "
        "set XDG_RUNTIME_DIR to a folder of this user that is not full"
    )


def _places() -> Iterator[Path]:
    """Where a folder may be made, best first."""
    given = [os.environ.get(name, "") for name in _VARIABLES]
    for place in dict.fromkeys(Path(text) for text in (*given, *USUAL) if text):
        if place.is_absolute() and len(os.fsencode(place)) <= LONGEST:
            yield place
