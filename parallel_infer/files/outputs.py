"""What commands write: never over something they read, and whole or not at all.

A file is written beside its place and then renamed, so that nobody sees half of it, and what was there before stays
where the disk is full. Devices and pipes, such as /dev/stdout, are written to as they are.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from parallel_infer.errors import ConfigError

_DRAFT = ".parallel-infer-"


class Inputs:
    """Files that a command reads, known by device and inode: no spelling, link or letter case hides one."""

    def __init__(self, files: Iterable[str | Path | None] = ()) -> None:
        """What is None, missing or no regular file counts as nothing."""
        known = ((_identity(Path(file)), Path(file)) for file in files if file)
        self._files = {identity: file for identity, file in known if identity is not None}

    def at(self, path: Path) -> Path | None:
        """The input that would be written over at `path`, as the command was given it."""
        identity = _identity(path)
        return None if identity is None else self._files.get(identity)


def check_target(path: Path, inputs: Inputs, place: str) -> None:
    """Refuse a file that could not be written, or should not, before any work is done for it.

    `place` is the option that named it. Raises ConfigError.
    """
    if (read := inputs.at(path)) is not None:
        raise ConfigError(f"{place} {path} would write over {read}, which this command reads; give another name")
    target = Path(_real(path, place))
    _check_name(target, f"{place} {path}")
    if target.is_dir():
        raise ConfigError(f"{place} {path} is a folder; a file is to be written there")
    if not target.parent.is_dir():
        raise ConfigError(f"{place} {path}: there is no folder {target.parent}")
    if _is_special(target):
        return
    if target.exists() and not os.access(target, os.W_OK):
        raise ConfigError(f"{place} {path} is there already and may not be written")
    _probe(target.parent, f"{place} {path}")


def make_folder(folder: Path, place: str) -> None:
    """Make a folder that files are to be written to, and see that they can be. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(f"{place} {folder} is no folder") from None
    except OSError as error:
        raise ConfigError(f"{place} {folder} cannot be made: {error.strerror}") from None
    _probe(folder, f"{place} {folder}")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises ConfigError where that cannot be done."""
    try:
        if _is_special(path):
            path.write_bytes(content)
            return
        with draft_beside(path) as draft:
            draft.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not be there yet, whole or not at all. Raises FileExistsError or another OSError."""
    draft = _name_beside(path, "")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        _link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def draft_beside(path: Path) -> Iterator[Path]:
    """A name beside `path`, of the same suffix; what is written there takes its place when the block ends well.

    A link is followed, and the permissions of what was there stay. Raises OSError.
    """
    draft = draft_for(path)
    try:
        yield draft
        put_in_place(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def draft_for(path: Path) -> Path:
    """A name that is free, in the folder of `path` and of the same suffix."""
    target = Path(os.path.realpath(path))
    return _name_beside(target, target.suffix)


def put_in_place(draft: Path, path: Path) -> None:
    """Let a finished draft be the file at `path`, with the permissions of what was there. Raises OSError."""
    target = Path(os.path.realpath(path))
    with contextlib.suppress(FileNotFoundError):
        draft.chmod(stat.S_IMODE(target.stat().st_mode))
    _flush(draft)
    draft.replace(target)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _is_special(path: Path) -> bool:
    """Whether a device, a pipe or a socket is there: a rename would put a file in its place."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _real(path: Path, place: str) -> str:
    try:
        return os.path.realpath(path)
    except OSError as error:  # the working folder is gone
        raise ConfigError(f"{place} {path}: {error.strerror}") from None


def _check_name(target: Path, place: str) -> None:
    """Refuse a name that no file can have, which `_probe` with its short one would not find out."""
    try:
        target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ConfigError(f"{place}: {error.strerror}") from None


def _probe(folder: Path, place: str) -> None:
    """Write a byte: permissions alone do not tell of read-only file systems, quotas and full disks."""
    draft = _name_beside(folder / "probe", "")
    try:
        draft.write_bytes(b"\0")
    except OSError as error:
        raise ConfigError(f"{place}: nothing can be written to {folder}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _name_beside(path: Path, suffix: str) -> Path:
    """Short, because the name of `path` itself may be as long as names can be."""
    return path.with_name(f"{_DRAFT}{secrets.token_hex(4)}{suffix}")


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(draft: Path, path: Path) -> None:
    """Give a finished file its name, unless that is taken."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists() or path.is_symlink():
            raise FileExistsError(path) from None
        draft.rename(path)
