"""What lies in a model repository: a folder of ONNX files, and of models in Triton's layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from parallel_infer.errors import ConfigError
from parallel_infer.model_files.location import find_model

_SUFFIX = ".onnx"
_OTHER_KINDS = (".engine", ".h5", ".keras", ".pb", ".plan", ".pt", ".pth", ".safetensors", ".tflite", ".torchscript")
_SYSTEM = ("lost+found",)  # of file systems


@dataclass(frozen=True, slots=True)
class Repository:
    """The models of a folder, name to the ONNX file's path, and what was passed over there, in words."""

    models: dict[str, str]
    warnings: tuple[str, ...]


def read_repository(folder: Path) -> Repository:
    """The models in `folder`: NAME.onnx, and NAME/VERSION/model.onnx, of which the highest version counts.

    Names that begin with a dot are left out, as Kubernetes needs it for its ConfigMaps and Secrets. Raises ConfigError
    for a folder that cannot be read or has no model, and for two models of one name.
    """
    models: dict[str, str] = {}
    warnings: list[str] = []
    configured: list[str] = []
    for entry in _entries(folder):
        if entry.is_file() and entry.suffix.lower() == _SUFFIX:
            _add(models, entry.stem, str(entry), folder)
        elif entry.is_dir():
            try:
                _add(models, entry.name, find_model(str(entry), folder), folder)
            except _TwiceError:
                raise
            except (ConfigError, OSError) as error:
                warnings.append(f"model repository {folder}: {entry.name} is passed over: {error}")
            if (entry / "config.pbtxt").is_file():
                configured.append(entry.name)
        elif entry.suffix.lower() in _OTHER_KINDS:
            warnings.append(f"model repository {folder}: {entry.name} is passed over: only ONNX files are served")
        elif entry.is_symlink() and not entry.exists():
            warnings.append(f"model repository {folder}: {entry.name} is passed over: its link leads nowhere")
    if not models:
        raise ConfigError("; ".join([_no_model(folder), *warnings]))
    return Repository(models, (*warnings, *_unread(folder, configured)))


class _TwiceError(ConfigError):
    """Two models of one name."""


def _entries(folder: Path) -> Iterable[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"model_repository: cannot read the folder {folder}: {error.strerror}") from error
    return (entry for entry in entries if not entry.name.startswith(".") and entry.name not in _SYSTEM)


def _add(models: dict[str, str], name: str, path: str, folder: Path) -> None:
    if name in models:
        raise _TwiceError(
            f"model_repository: {folder} holds the model {name!r} twice: {models[name]} and {path}; remove one of them"
        )
    models[name] = path


def _no_model(folder: Path) -> str:
    return (
        f"model_repository: there is no model in {folder}; expected NAME.onnx or NAME/1/model.onnx, "
        f"for example {folder}/street.onnx"
    )


def _unread(folder: Path, configured: list[str]) -> Iterator[str]:
    if configured:
        yield (
            f"model repository {folder}: config.pbtxt is not read (of {', '.join(configured)}); what it says of "
            "batches and instances goes into tables [models.NAME] of the configuration file"
        )
