"""Files of class names, read where they lie: beside a configuration, or on the machine of whoever loads a model."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

from parallel_infer.errors import ConfigError
from parallel_infer.json_keys import twice
from parallel_infer.model_files.location import absolute_path

_SUFFIXES = (".txt", ".names", ".labels", ".json", ".yaml", ".yml")
_LARGEST = 4_000_000  # bytes
_NAMES = re.compile(r"^names\s*:(.*)", re.MULTILINE | re.DOTALL)  # of a YAML file, at its top level
_COMMENT = re.compile(r"(?:^|\s)#.*$", re.MULTILINE)
_NUMBER = r"""(?:['"]?(\d+)['"]?\s*:)"""
_LINE = re.compile(rf"\s*(?:-|{_NUMBER})\s+(.*)")
_ITEM = re.compile(rf"""\s*{_NUMBER}?\s*('(?:[^']|'')*'|"[^"]*"|[^,'"\s][^,]*)\s*(?:,|$)""")


def read_names(value: Any, folder: Path) -> Any:
    """The names in the file that `value` names, as a list or a map; anything that is no name of such a file as it is.

    One name a line, JSON (a list, a map, or one under "names", "id2label" or "categories"), or the `names` of a YAML
    file as Ultralytics writes it. A relative path starts at `folder`. Raises ConfigError where it cannot be read.
    """
    if not isinstance(value, str | Path) or not str(value).lower().endswith(_SUFFIXES) or "\n" in str(value):
        return value
    path = absolute_path(str(value), folder)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe may never be written to, a device never end
            raise ConfigError(f"names: {value} is no file of class names")
        if status.st_size > _LARGEST:
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
        if name := twice(text.encode(errors="surrogatepass")):
            raise ConfigError(f"names: {name!r} is there twice in the file; give it once")
        if isinstance(found, dict):
            found = next((found[key] for key in ("names", "id2label", "categories") if key in found), found)
        return found
    if suffix in (".yaml", ".yml"):
        return _from_yaml(text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _from_yaml(text: str) -> list[str] | dict[str, str]:
    """The entries under `names:`, one a line or in brackets; by number where they have numbers."""
    found = _NAMES.search(text)
    if found is None:
        return []
    block = _COMMENT.sub("", found[1])
    start = block.lstrip(" \t")[:1]
    if start in ("[", "{"):
        items, closed, _ = block.partition(start)[2].partition({"[": "]", "{": "}"}[start])
        return _collected(_ITEM.findall(items)) if closed else []
    if inline := block.partition("\n")[0].strip():
        return _collected([("", name) for name in inline.split(",")])
    entries = []
    for line in filter(str.strip, block.splitlines()):
        match = _LINE.fullmatch(line)
        if match is None:
            break
        entries.append((match[1] or "", match[2]))
    return _collected(entries)


def _collected(entries: list[tuple[str, str]]) -> list[str] | dict[str, str]:
    """From numbers, or none, and names as YAML writes them."""
    names = [_unquoted(name.strip()) for _, name in entries]
    numbers = [number for number, _ in entries]
    if any(numbers):
        if again := next((number for number in numbers if numbers.count(number) > 1), None):
            raise ConfigError(f"names: class {again} is there twice in the file; give it once")
        return dict(zip(numbers, names, strict=True)) if all(numbers) else []
    return names


def _unquoted(name: str) -> str:
    if name[:1] in ("'", '"') and name[-1:] == name[:1] and len(name) > 1:
        return name[1:-1].replace("''", "'") if name[0] == "'" else name[1:-1]
    return name
