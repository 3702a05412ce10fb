"""A model taken from disk: its content read once, copied where nobody writes to it, and its digest."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple

from parallel_infer.errors import ModelRejected
from parallel_infer.model_files.digest import digest_of_parts
from parallel_infer.model_files.store import CopyOrder, folder_with_room
from stages.recognise.graph import data_files, parse_model, read_model, written_at

_CHUNK = 4 << 20
_CLONE = 0x40049409  # FICLONE: the copy shares the blocks of the original, where the file system can


class Held(NamedTuple):
    """A model as it is going to be served."""

    path: Path
    digest: str
    data_files: tuple[str, ...]
    warning: str


def hold(path: Path, order: CopyOrder, known: str = "") -> Held | None:
    """Read a model and keep what was read; None where its digest is `known`, and nothing is to be done.

    Raises ModelRejected where it cannot be read or is being written to, and ConfigError where the folder that the user
    asked for has no room.
    """
    content = read_model(path)
    data = data_files(parse_model(content, path.name), path.parent)
    own = (path.name, hashlib.sha256(content).hexdigest())
    if known and _digest(own, data, path.parent, None) == known:
        return None
    size = len(content) + sum(data.values())
    folder = folder_with_room(order, size) if order.folders else None
    if folder is not None:
        try:
            (folder / path.name).write_bytes(content)
        except OSError as error:
            raise ModelRejected(f"{path.name}: its copy in {folder} was not written ({error.strerror})") from error
    warning = _in_place(size) if order.folders and folder is None else ""
    digest = _digest(own, data, path.parent, folder)
    return Held(folder / path.name if folder is not None else path, digest, tuple(data), warning)


def _digest(own: tuple[str, str], data: Iterable[str], folder: Path, copies: Path | None) -> str:
    """The digest of the whole model; its data files are copied on the way where `copies` is a folder."""
    digests = [(name, _digested(folder / name, None if copies is None else copies / name)) for name in data]
    return digest_of_parts(own, digests)


def _in_place(size: int) -> str:
    return (
        f"there is no room for a copy of its {size >> 20} MB, so it is used where it lies: "
        "do not write over it while it is served, or name a folder with room (option model_copies)"
    )


def _digested(source: Path, copy: Path | None) -> str:
    """The SHA-256 of a data file, which is copied on the way where `copy` says so."""
    try:
        with os.fdopen(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            before = written_at(file)
            digest = _read_through(file, None) if copy is None else _copied(file, copy)
            if written_at(file) != before:
                raise ModelRejected(f"external data {source.name!r} is being written to; load it when it is whole")
    except OSError as error:
        raise ModelRejected(f"external data {source.name!r} cannot be copied ({error.strerror})") from error
    return digest


def _copied(file: IO[bytes], copy: Path) -> str:
    copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with copy.open("xb+") as target:
        try:
            fcntl.ioctl(target.fileno(), _CLONE, file.fileno())
        except OSError:
            return _read_through(file, target)
        return _read_through(target, None)


def _read_through(file: IO[bytes], target: IO[bytes] | None) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest()
