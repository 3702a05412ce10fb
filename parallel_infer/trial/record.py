"""What trials found, kept in the cache folder: one small JSON file for models, machine and everything they depend on.

FOLDER/trials/KEY.json      KEY: a digest of the models as they are served and of what is here
FOLDER/trials/lock          held by a server while it tries
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
from msgspec import Struct

from parallel_infer.errors import ConfigError
from parallel_infer.files.outputs import make_folder, write_whole
from parallel_infer.ipc.messages import ModelPlan
from parallel_infer.machine.processor import processor_fields
from parallel_infer.trial.settings import Setting

_FORMAT = 3  # of the record, and of what a trial does: a better trial is done anew
_MOST = 256  # records; the oldest go
_KEY = 32  # characters
_PACKAGES = ("parallel-infer", "onnxruntime", "onnxruntime-gpu", "openvino", "onnxruntime-ep-openvino", "numpy")
_GPUS = Path("/proc/driver/nvidia/gpus")


class Record(Struct, frozen=True, kw_only=True):
    """What a trial found, for models in the order of their `ident`."""

    models: tuple[str, ...]  # their names then, for people
    settings: tuple[Setting, ...]
    default: tuple[Setting, ...]
    rate: float  # rows per second of these, all models together
    default_rate: float  # of the default
    gain: float = 1.0  # times the default's rate, in the geometric mean of the models
    seconds: float  # that it took
    rates: dict[str, float]  # of every setting that was measured, by its text
    unusable: dict[str, str] = {}  # settings that did not run, to the reason
    complete: bool = True  # else the time was over
    others: float = 0.0  # part of the cores that other programs took meanwhile
    trial_seconds: float = 0.0  # the bound it was held to
    attempts: int = 1  # trials with that bound, this one included


def ident(plan: ModelPlan) -> bytes:
    """Everything of a model that changes the answer: content, shapes, provider, precision, device, limits; no names."""
    spec = msgspec.structs.replace(plan.spec, name="", path="", evidence=(), warnings=(), names=())
    rows, outputs = (msgspec.structs.replace(ring, segment="") for ring in (plan.rows, plan.outputs))
    session = msgspec.structs.replace(plan.session, cache=None, profile=None)
    bare = msgspec.structs.replace(plan, name="", version=1, spec=spec, rows=rows, outputs=outputs, session=session)
    return msgspec.msgpack.encode(bare, order="deterministic")


def key_of(models: Sequence[bytes], facts: Mapping[str, object]) -> str:
    """The name of a record: `models` are idents in their order, `facts` what of machine and server matters."""
    text = msgspec.msgpack.encode([_FORMAT, list(models), dict(facts)], order="deterministic")
    return hashlib.sha256(text).hexdigest()[:_KEY]


def machine_facts() -> dict[str, object]:
    """Processor, GPUs and versions of libraries."""
    processor = processor_fields()
    return {
        "processor": processor.get("model name", ""),
        "flags": processor.get("flags", processor.get("Features", "")),
        "gpus": [_content(path / "information").partition("\n")[0] for path in sorted(_GPUS.glob("*"))],  # its model
        "driver": _content(_GPUS.parent / "version"),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def trials_folder(cache: str | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Where records lie: in `cache`, else in the user's folder for caches. Raises ConfigError where there is none."""
    if cache is not None:
        return Path(cache) / "trials"
    if environment.get("XDG_CACHE_HOME", "").startswith("/"):
        return Path(environment["XDG_CACHE_HOME"]) / "parallel-infer" / "trials"
    try:
        return Path.home() / ".cache" / "parallel-infer" / "trials"
    except RuntimeError:
        raise ConfigError("this user has no home; give a folder (option cache)") from None


class Records:
    """The records in a folder, which is made when something is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str, models: int) -> Record | None:
        """The record of that name, for so many models. Raises ConfigError for one that cannot be read or is damaged."""
        path = self._path(key)
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Record)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{path} is damaged ({error})") from None
        if len(record.settings) != models:
            raise ConfigError(f"{path} is damaged (settings of {len(record.settings)} models, not {models})")
        return record

    def save(self, key: str, record: Record) -> None:
        """Keep a record, and let the oldest go where there are too many. Raises ConfigError."""
        make_folder(self.folder, "cache")
        write_whole(self._path(key), msgspec.json.format(msgspec.json.encode(record)) + b"\n")
        with contextlib.suppress(OSError):  # another server does the same
            files = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for path in files[:-_MOST]:
                path.unlink()

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Whether nobody else tries meanwhile. Raises ConfigError where nothing can be written to the folder."""
        make_folder(self.folder, "cache")
        path = self.folder / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(f"cache {path} cannot be written: {error.strerror}") from None
        try:
            yield _lock(descriptor)
        finally:
            os.close(descriptor)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: then nobody can say
        return True
    return True


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _content(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
