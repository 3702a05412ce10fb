"""Where a model's file lies: a path, a folder in Triton's layout, or a model of the shipped zoo."""

from __future__ import annotations

import os
from pathlib import Path

from parallel_infer.errors import ConfigError
from parallel_infer.wrong_fields import nearest

ZOO = Path(__file__).parent.parent / "zoo"
ZOO_PREFIX = "zoo:"
SERVED_BY_DEFAULT = ("detector", "classifier", "segmenter")


def shipped_models() -> dict[str, str]:
    """The shipped models: name to path."""
    return {path.stem: str(path) for path in sorted(ZOO.glob("*.onnx"))}


def default_models() -> dict[str, str]:
    """What a server serves that is told no model: name to path."""
    shipped = shipped_models()
    missing = [name for name in SERVED_BY_DEFAULT if name not in shipped]
    if missing:
        raise ConfigError(f"the shipped models {', '.join(missing)} are missing: install parallel-infer again")
    return {name: shipped[name] for name in SERVED_BY_DEFAULT}


def zoo_name(path: str) -> str | None:
    """`zoo:NAME` if the path is that of a shipped model."""
    return next((ZOO_PREFIX + name for name, shipped in shipped_models().items() if shipped == path), None)


def split_model(text: str) -> tuple[str, str]:
    """NAME and PATH of `NAME=PATH`; the path may hold further equals signs. Raises ConfigError."""
    name, separator, path = text.partition("=")
    if not separator or not name.strip() or not path.strip():
        raise ConfigError(f"the model {text!r} is not NAME=PATH, for example detector=models/yolov8n.onnx")
    return name.strip(), path.strip()


def find_model(path: str, folder: Path) -> str:
    """The absolute path of the ONNX file that `path` means; a relative one starts at `folder`. Raises ConfigError."""
    if path.startswith(ZOO_PREFIX):
        return _find_shipped(path.removeprefix(ZOO_PREFIX))
    found = absolute_path(path, folder)
    if found.is_dir():
        return str(_find_version(found))
    if not found.is_file():
        raise ConfigError(f"there is no file {found}")
    return str(found)


def absolute_path(path: str, folder: Path) -> Path:
    """`path` from `folder`, with `~` for the user's home where that is known. Raises ConfigError for no UTF-8.

    Only a relative `path` and `folder` need a working folder, which may be gone.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{path.encode(errors='backslashreplace').decode()} is no name in UTF-8; rename it") from None
    return Path(os.path.abspath(folder / os.path.expanduser(path)))  # noqa: PTH111  # Path's fails without a home


def _find_shipped(name: str) -> str:
    shipped = shipped_models()
    if name not in shipped:
        raise ConfigError(f"no model {name!r} is shipped, only {', '.join(shipped)}{nearest(name, shipped)}")
    return shipped[name]


def _find_version(folder: Path) -> Path:
    """The file of the highest version in a folder of Triton's layout, FOLDER/VERSION/model.onnx."""
    versions = [version for version in folder.iterdir() if version.name.isdecimal()]
    files = {int(version.name): version / "model.onnx" for version in versions if (version / "model.onnx").is_file()}
    if files:
        return files[max(files)]
    models = sorted({path.parent.parent.name for path in folder.glob("*/*/model.onnx")})
    if models:
        known = f"{models[0]}={folder / models[0]}"
        raise ConfigError(f"{folder} holds several models: {', '.join(models)}; name each of them, for example {known}")
    raise ConfigError(f"{folder} is a folder without VERSION/model.onnx, for example {folder}/1/model.onnx")
