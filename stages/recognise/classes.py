"""Class names in the forms that people and exporters write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_CLASSES = 100_000


def names_from(value: Any) -> tuple[str, ...]:
    """Names by class number, from a list, a map {number: name} or "a, b, c"; empty where `value` is none of these.

    Numbers that a map leaves out are named by their number.
    """
    if isinstance(value, str):
        return tuple(_text(name.strip()) for name in value.split(",") if name.strip())
    if isinstance(value, list | tuple):
        return tuple(map(_text, value))
    if isinstance(value, Mapping):
        return _from_map(value)
    return ()


def _text(name: Any) -> str:
    """As text that can be written in UTF-8: a lone surrogate, which a Python literal may hold, cannot."""
    return str(name).encode("utf-8", "replace").decode()


def _from_map(value: Mapping[Any, Any]) -> tuple[str, ...]:
    numbered: dict[int, str] = {}
    for key, name in value.items():
        if not str(key).isascii() or not str(key).isdigit() or int(str(key)) >= MOST_CLASSES:
            return ()
        numbered[int(str(key))] = _text(name)
    return tuple(numbered.get(number, str(number)) for number in range(max(numbered, default=-1) + 1))
