"""Private folders for sockets: mode 0700, in the first place that can hold one.

That is XDG_RUNTIME_DIR, TMPDIR, /tmp, /var/tmp or /dev/shm, whichever is there, is this user's to write to and leaves
room for a socket's name. After `su` or `sudo` XDG_RUNTIME_DIR is often another user's, in a container it is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from parallel_infer.errors import ConfigError
from parallel_infer.shm.segment import alive

_LONGEST = 80  # bytes of the place; an ipc address may have 107 in all
_RUNS = f"parallel-infer-{os.getuid()}"
_LOCAL = f"{_RUNS}-local"  # apart, because older versions take everything in the former for runs
_VARIABLES = ("XDG_RUNTIME_DIR", "TMPDIR")
_USUAL = ("/tmp", "/var/tmp", "/dev/shm")
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
    for base in (place / name for place in _places() for name in (_RUNS, _LOCAL)):
        try:
            _check_private(base)
            folders = list(base.iterdir())
        except OSError:
            continue  # there is none, or it is somebody else's
        for folder in folders:
            _sweep(folder)


def _make(base: str, name: str) -> Path:
    refused = []
    for place in _places():
        try:
            folder = place / base / name
            _make_private(folder.parent)
            _make_locked(folder)
        except OSError as error:
            refused.append(f"{place} ({error.strerror})")
            continue
        if refused:
            log.info("the folder of this run is %s, because it cannot be in %s", folder, ", ".join(refused))
        return folder
    raise ConfigError(
        f"no private folder for sockets can be made in {', '.join(refused)}; "
        "set XDG_RUNTIME_DIR to a folder of this user that is not full"
    )


def _make_locked(folder: Path) -> None:
    """Make a folder and hold a lock on it, which works across pid namespaces and dies with its holder."""
    while True:
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)  # whatever the umask is
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            # A sweeper may have locked and removed the folder between the two calls above.
            if folder.stat().st_ino == os.fstat(descriptor).st_ino:
                _locks[folder] = descriptor
                return
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove a folder that nobody holds."""
    if alive(folder.name):
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return  # in use, or a file system without locks: then nobody can say
    finally:
        os.close(descriptor)


def _places() -> Iterator[Path]:
    """Where a folder may be made, best first."""
    given = [os.environ.get(name, "") for name in _VARIABLES]
    for place in dict.fromkeys(Path(text) for text in (*given, *_USUAL) if text):
        if place.is_absolute() and len(os.fsencode(place)) <= _LONGEST:
            yield place


def _make_private(base: Path) -> None:
    """The user's folder in a place where others may write too. Raises OSError where somebody else sits on the name."""
    try:
        base.mkdir(mode=0o700)
        base.chmod(0o700)
    except FileExistsError:
        _check_private(base)


def _check_private(base: Path) -> None:
    """Not following a link, which could lead to anything of this user's. Raises OSError."""
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(None, f"{base.name} in it is not a private folder of this user")
