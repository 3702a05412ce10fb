"""Shared-memory segments: created and reserved by one process, attached by others, swept when their run is dead.

The only file that imports `multiprocessing.shared_memory`. A run is marked by a segment of its own, `pinfer-RUN`, on
which the supervisor holds a file lock for as long as it lives; all other segments of the run are `pinfer-RUN-NAME`.
The lock, not a pid, tells whether a run is alive: it works across pid namespaces and dies with its holder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import mmap
import os
import secrets
import shutil
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import ConfigError

PREFIX = "pinfer-"
FOLDER = Path("/dev/shm")
_MADV_POPULATE_WRITE = 23  # Linux 5.14; absent from the mmap module
_attaching = threading.Lock()


class _Mapping(SharedMemory):
    """A mapping that may be dropped while views still pin it; the kernel unmaps it when the last view dies."""

    def __del__(self) -> None:
        with contextlib.suppress(BufferError, OSError):
            self.close()


class Segment:
    """One mapped segment. `close` gives up this process's mapping, `unlink` (the creator's) removes the name."""

    def __init__(self, mapping: SharedMemory, size: int) -> None:
        self._mapping = mapping
        self.name = mapping.name
        self.size = size

    @classmethod
    def create(cls, name: str, size: int) -> Segment:
        """Create a segment with every page reserved and present, mode 0600.

        Raises ConfigError when /dev/shm has no room: without the reservation the first touch of a missing page
        would be a SIGBUS.
        """
        try:
            mapping = _map(name=name, create=True, size=size)
        except FileExistsError:
            raise
        except OSError as error:  # descriptors have run out, or mappings
            (FOLDER / name).unlink(missing_ok=True)
            raise ConfigError(f"no segment of shared memory can be made: {error.strerror} (see ulimit -n)") from None
        try:
            descriptor = os.open(FOLDER / name, os.O_RDWR)
            try:
                # Asked for more than is free, tmpfs hands out page by page what there is before it says no; where it
                # may be as large as the memory, the kernel kills somebody before that.
                if shutil.disk_usage(FOLDER).free < size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.posix_fallocate(descriptor, 0, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            mapping.close()
            (FOLDER / name).unlink(missing_ok=True)
            raise ConfigError(
                f"not enough shared memory: {size / 2**20:.1f} MB more were needed for one ring ({error.strerror}). "
                "Give /dev/shm more room (docker run --shm-size=1g; mount -o remount,size=1g /dev/shm), or lower "
                "shared_memory_mb, max_batch_size or queue_size"
            ) from None
        _populate(mapping)
        return cls(mapping, size)

    @classmethod
    def attach(cls, name: str) -> Segment:
        """Map a segment that another process created; that process stays the one who removes it."""
        mapping = _map(name=name)
        _populate(mapping)
        return cls(mapping, mapping.size)

    def view(self, dtype: str, shape: tuple[int, ...], offset: int = 0) -> npt.NDArray[Any]:
        """The one way to see shared memory: an array [*shape] at `offset` bytes that pins the mapping."""
        count = int(np.prod(shape, dtype=np.int64))
        assert self._mapping.buf is not None
        return np.frombuffer(self._mapping.buf, dtype, count, offset).reshape(shape)

    def close(self) -> None:
        """Give up this mapping; with views still alive, the last of them does."""
        with contextlib.suppress(BufferError):
            self._mapping.close()

    def unlink(self) -> None:
        """Remove the name; mappings of other processes stay valid until they close."""
        (FOLDER / self.name).unlink(missing_ok=True)


def _map(**arguments: Any) -> SharedMemory:
    """Map without telling the resource tracker, which would unlink the segment when any process of it exits.

    What a run leaves behind is removed by its supervisor, or by the next one: see RunMark and sweep.
    """
    if sys.version_info >= (3, 13):
        mapping: SharedMemory = _Mapping(**arguments, track=False)
    else:
        with _attaching, _unregistered():
            mapping = _Mapping(**arguments)
    # The mapping needs its descriptor no more, and a close under a live view would never get to it.
    os.close(mapping._fd)  # type: ignore[attr-defined]
    mapping._fd = -1  # type: ignore[attr-defined]
    return mapping


def _populate(mapping: SharedMemory) -> None:
    """Fault all pages in now, so that the first pass over a ring is as fast as the second."""
    memory = mapping.buf.obj if mapping.buf is not None else None
    if isinstance(memory, mmap.mmap):
        with contextlib.suppress(OSError):  # an older kernel: pages come one by one
            memory.madvise(_MADV_POPULATE_WRITE)


@contextlib.contextmanager
def _unregistered() -> Iterator[None]:
    register, unregister = resource_tracker.register, resource_tracker.unregister
    resource_tracker.register = resource_tracker.unregister = lambda name, rtype: None  # the latter if mapping fails
    try:
        yield
    finally:
        resource_tracker.register, resource_tracker.unregister = register, unregister


def exists(name: str) -> bool:
    """Whether a segment of that name is still there."""
    return (FOLDER / name).exists()


def lent_segments(base: str, gateway: int) -> str:
    """What the names of segments begin with that a gateway of this epoch lends to clients."""
    return f"{base}-g{gateway}-"


def remove_all(prefix: str) -> None:
    """Remove the names of all segments that begin so. Whoever has one mapped keeps it."""
    for path in FOLDER.glob(f"{glob.escape(prefix)}*"):
        path.unlink(missing_ok=True)


class RunMark:
    """The mark of a living run. Made first and removed last; its lock says that the run's segments are in use."""

    def __init__(self) -> None:
        while True:
            self.run = secrets.token_hex(4)
            path = FOLDER / f"{PREFIX}{self.run}"
            self._descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                # A sweeper may have locked and removed the mark between the two calls above.
                if path.stat().st_ino == os.fstat(self._descriptor).st_ino:
                    return
            os.close(self._descriptor)

    def segment_name(self, name: str) -> str:
        """The name of a segment of this run."""
        return f"{PREFIX}{self.run}-{name}"

    def remove(self) -> None:
        """Remove every segment of this run that is still there, then the mark."""
        remove_all(f"{PREFIX}{self.run}-")
        (FOLDER / f"{PREFIX}{self.run}").unlink(missing_ok=True)
        os.close(self._descriptor)


def dead_runs() -> list[str]:
    """Runs of this user whose supervisor is gone but whose segments are still there."""
    runs = {path.name.removeprefix(PREFIX).split("-")[0] for path in FOLDER.glob(f"{PREFIX}*") if _ours(path)}
    return sorted(run for run in runs if not alive(run))


def sweep() -> list[str]:
    """Remove what dead runs left in /dev/shm; returns the runs."""
    removed = []
    for run in dead_runs():
        with _locked_if_dead(run) as dead:  # a run that has just begun may not have locked its mark at the first look
            if dead:
                for path in [*FOLDER.glob(f"{PREFIX}{run}-*"), FOLDER / f"{PREFIX}{run}"]:
                    path.unlink(missing_ok=True)
                removed.append(run)
    return removed


def _ours(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_uid == os.getuid()
    return False


def alive(run: str) -> bool:
    """Whether the supervisor of a run lives."""
    with _locked_if_dead(run) as dead:
        return not dead


@contextlib.contextmanager
def _locked_if_dead(run: str) -> Iterator[bool]:
    """Whether the supervisor of a run is gone; if so its mark stays locked inside, so that no run begins with it."""
    with contextlib.ExitStack() as ends:
        yield _is_dead(run, ends)


def _is_dead(run: str, ends: contextlib.ExitStack) -> bool:
    try:
        descriptor = os.open(FOLDER / f"{PREFIX}{run}", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
    ends.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
