"""Files of class names, read where they lie: beside a configuration, or on the machine of whoever loads a model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from parallel_infer.errors import ConfigError
from parallel_infer.model_files.location import absolute_path

_SUFFIXES = (".txt", ".names", ".labels", ".json", ".yaml", ".yml")
_LARGEST = 4_000_000  # bytes
_ENTRY = re.compile(r"^\s*(?:-|\d+\s*:)\s*(.+?)\s*$")


def read_names(value: Any, folder: Path) -> Any:
    """The names in the file that `value` names, as a list or a map; anything that is no name of such a file as it is.

    One name a line, JSON (a list, a map, or one under "names" or "id2label"), or the `names` of a YAML file as
    Ultralytics writes it. A relative path starts at `folder`. Raises ConfigError where it cannot be read.
    """
    if not isinstance(value, str | Path) or not str(value).lower().endswith(_SUFFIXES) or "\n" in str(value):
        return value
    path = absolute_path(str(value), folder)
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigError(f"names: {value} has more than {_LARGEST} bytes, too many for class names")
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"names: the file {value} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"names: the file {value} is not text in UTF-8") from error
    found = _parsed(text, path.suffix.lower())
    if not found:
        raise ConfigError(f"names: the file {value} holds no class names; expected one a line")
    return found


def _parsed(text: str, suffix: str) -> Any:
    if suffix == ".json":
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"names: the file is not JSON: {error}") from error
        if isinstance(found, dict):
            found = next((found[key] for key in ("names", "id2label") if key in found), found)
        return found
    if suffix in (".yaml", ".yml"):
        return _from_yaml(text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _from_yaml(text: str) -> list[str]:
    """The entries under `names:`, one a line or in brackets on the same line."""
    _, found, rest = text.partition("names:")
    if not found:
        return []
    first, _, block = rest.partition("\n")
    inline = first.partition(" #")[0].strip()
    if inline:
        entries = inline.strip("[]{}").split(",")
        return [re.sub(r"^\d+\s*:\s*", "", entry.strip()).strip("'\"") for entry in entries]
    names = []
    for line in block.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            match = _ENTRY.match(line.partition(" #")[0])
            if match is None:
                break
            names.append(match[1].strip("'\""))
    return names
