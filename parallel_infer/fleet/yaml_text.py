"""YAML of maps, lists, texts and numbers, for people to read and for `serve deploy`; texts are written as JSON does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))  # YAML 1.1 reads them otherwise


def to_yaml(value: Mapping[str, Any]) -> str:
    """The text; read back it gives the same map. Raises TypeError for what YAML has no plain form for."""
    return "\n".join(_lines(value, "")) + "\n"


def _lines(value: Any, indent: str) -> Iterator[str]:
    """The lines of a map or a list that is not empty."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entry(f"{indent}{_key(key)}:", item, indent + "  ")
        return
    for item in value:
        if _is_block(item):
            first, *rest = _lines(item, indent + "  ")
            yield f"{indent}- {first.removeprefix(indent + '  ')}"
            yield from rest
        else:
            yield f"{indent}- {_scalar(item)}"


def _entry(head: str, item: Any, indent: str) -> Iterator[str]:
    if _is_block(item):
        yield head
        yield from _lines(item, indent)
    else:
        yield f"{head} {_scalar(item)}"


def _is_block(item: Any) -> bool:
    return isinstance(item, Mapping | list) and bool(item)


def _key(key: str) -> str:
    return key if _PLAIN.fullmatch(key) and key.lower() not in _WORDS else _text(key)


def _scalar(item: Any) -> str:
    match item:
        case float():
            text = repr(item)
            return text if "e" not in text or "." in text else text.replace("e", ".0e")
        case None | bool() | int():
            return json.dumps(item)
        case str():
            return _text(item)
        case list():
            return "[]"
        case Mapping():
            return "{}"
    raise TypeError(f"{type(item).__name__} has no place in YAML")


def _text(text: str) -> str:
    """In double quotes; escaped is what YAML does not allow as it is."""
    shown = json.dumps(text, ensure_ascii=False)
    return re.sub(
        "[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", shown
    )
