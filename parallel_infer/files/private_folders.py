"""Folders that only this user may enter, in places where others may write too, each held by the process that made it.

A lock on the folder itself, not a pid and not a file elsewhere, tells whether it is in use: it works across containers
that share no more than the place, and it dies with its holder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path


def make_private(base: Path) -> None:
    """The user's folder in a place. Raises OSError where it cannot be made or somebody else sits on the name."""
    try:
        base.mkdir(mode=0o700)
        base.chmod(0o700)
    except FileExistsError:
        check_private(base)


def check_private(base: Path) -> None:
    """Not following a link, which could lead to anything of this user's. Raises OSError."""
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(None, f"{base.name} in it is not a private folder of this user")


def make_held(folder: Path) -> int:
    """Make a folder and lock it; the descriptor to keep open while it is in use. Raises OSError.

    On a file system without locks it is not locked, and nobody sweeps it.
    """
    while True:
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)  # whatever the umask is
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # A sweeper may have locked and removed the folder between the calls above.
        if is_held(folder, descriptor):
            return descriptor
        os.close(descriptor)


def is_held(folder: Path, descriptor: int) -> bool:
    """Whether what lies at `folder` still is what `make_held` made."""
    with contextlib.suppress(OSError):
        return os.path.samestat(folder.lstat(), os.fstat(descriptor))
    return False


def sweep(base: Path, is_spared: Callable[[str], bool] = lambda name: False) -> None:
    """Remove the folders in a user's folder that nobody holds, but those whose name `is_spared`."""
    try:
        check_private(base)
        folders = list(base.iterdir())
    except OSError:
        return  # there is none, or it is somebody else's
    for folder in folders:
        if not is_spared(folder.name):
            _remove_unheld(folder)


def _remove_unheld(folder: Path) -> None:
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
