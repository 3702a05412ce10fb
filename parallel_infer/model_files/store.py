"""Copies of model files that belong to a run: what was looked into is what is served, whatever becomes of the files.

Each load gets a folder of its own, which only this user can enter, in a folder of the run that its supervisor holds.
Workers that start later, or again, read the same bytes, and share them in the page cache. Where no folder has room for
a model, it is used where it lies, and every worker compares its digest before it loads it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import msgspec

from parallel_infer.errors import ConfigError
from parallel_infer.files.private_folders import is_held, make_held, make_private, sweep
from parallel_infer.model_spec import ModelSpec

_SPARE = 64 << 20  # bytes that a copy leaves free for others
_ELSEWHERE = "/var/tmp"  # mostly a disk where /tmp is memory


class ModelStore:
    """The copies of one run. Made before any model is looked into; `remove` takes all of them away."""

    def __init__(self, run: str, asked: str | None, folder: Path) -> None:
        """`asked` is the option model_copies; without it there are several places to try, `folder` the last of them."""
        places = [Path(asked)] if asked else [*_usual_places(), folder]
        self._folders = [_base(place) / run for place in dict.fromkeys(places)]
        self._asked = asked is not None
        self._numbers = 0
        self._held: dict[Path, int] = {}  # folders of this run, and the descriptors that hold them
        self._users: dict[str, int] = {}  # by folder of a copy
        self._by_digest: dict[str, str] = {}  # to the path of the copy's file

    def order(self) -> CopyOrder:
        """What a process that looks into a model is told: where its copy may go, and whether it must go there."""
        self._numbers += 1
        refused = tuple(why for folder in self._folders if (why := self._hold(folder)))
        folders = tuple(str(folder / str(self._numbers)) for folder in self._folders if folder in self._held)
        return CopyOrder(folders, self._asked, refused)

    def keep(self, spec: ModelSpec) -> ModelSpec:
        """Take a copy in use; where the same content is in use already, under whatever name, that one."""
        folder = Path(spec.path).parent
        if folder.parent not in self._folders:
            return spec
        path = self._by_digest.get(spec.digest, spec.path)
        if not Path(path).exists():  # somebody has removed it
            path = spec.path
        self._by_digest[spec.digest] = path
        if path != spec.path and Path(path).name == Path(spec.path).name:
            _remove(folder)
            spec = msgspec.structs.replace(spec, path=path)
        used = str(Path(spec.path).parent)
        self._users[used] = self._users.get(used, 0) + 1
        return spec

    def release(self, spec: ModelSpec) -> None:
        """A model is served no more; its copy goes with the last that uses it."""
        folder = str(Path(spec.path).parent)
        if folder not in self._users:
            return
        self._users[folder] -= 1
        if not self._users[folder]:
            del self._users[folder]
            if self._by_digest.get(spec.digest) == spec.path:
                del self._by_digest[spec.digest]
            _remove(Path(folder))

    def discard(self, order: CopyOrder) -> None:
        """A load came to nothing: remove what it may have copied."""
        for folder in order.folders:
            if folder not in self._users:
                _remove(Path(folder))

    def remove(self) -> None:
        """Remove every copy of this run."""
        for folder, descriptor in self._held.items():
            _remove(folder)
            os.close(descriptor)
        self._held.clear()

    def _hold(self, folder: Path) -> str:
        """Make a folder of this run, again where somebody has removed it; why not, if that cannot be done."""
        descriptor = self._held.get(folder)
        if descriptor is not None and is_held(folder, descriptor):
            return ""
        if descriptor is not None:
            os.close(self._held.pop(folder))
        place = folder.parents[1]
        try:
            place.mkdir(parents=True, exist_ok=True)
            make_private(folder.parent)
            self._held[folder] = make_held(folder)
        except OSError as error:
            return f"{place}: {error.strerror}"
        return ""


class CopyOrder(msgspec.Struct, frozen=True):
    """Where the copy of one model may go, in this order."""

    folders: tuple[str, ...] = ()
    asked: bool = False  # the user named the folder
    refused: tuple[str, ...] = ()  # places that cannot be used, each with the reason


def folder_with_room(order: CopyOrder, size: int) -> Path | None:
    """A fresh private folder for a copy of `size` bytes; None where there is none and the user asked for none.

    Raises ConfigError where the folder that the user asked for cannot take it.
    """
    reasons = list(order.refused)
    for name in order.folders:
        folder = Path(name)
        try:
            free = shutil.disk_usage(folder.parent).free
            if free < size + _SPARE:
                reasons.append(f"{folder.parents[2]} has {free >> 20} MB free")
                continue
            folder.mkdir(mode=0o700)
            folder.chmod(0o700)  # whatever the umask is
            return folder
        except OSError as error:
            reasons.append(f"{error.filename or folder}: {error.strerror}")
    if order.asked:
        need = f"{(size + _SPARE) >> 20} MB are needed"
        raise ConfigError(f"model_copies: {'; '.join(reasons)}; {need} for the run's own copy of the model")
    return None


def sweep_copies(asked: str | None) -> None:
    """Remove the copies of runs that are gone."""
    for place in [*_usual_places(), *([Path(asked)] if asked else [])]:
        sweep(_base(place))


def _usual_places() -> list[Path]:
    with contextlib.suppress(FileNotFoundError):  # where no folder for temporary files can be written to
        return [Path(tempfile.gettempdir()), Path(_ELSEWHERE)]
    return [Path(_ELSEWHERE)]


def _base(place: Path) -> Path:
    return place / f"parallel-infer-models-{os.getuid()}"


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
