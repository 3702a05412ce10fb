"""Class names in the forms that people and exporters write them."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

MOST_CLASSES = 100_000


def names_from(value: Any) -> tuple[str, ...]:
    """Names by class number; empty where `value` holds none.

    From a list, a map {number: name}, either of them as text (JSON or a Python literal, which is never run), or plain
    text with one name a line, or commas between names. Numbers that a map leaves out are named by their number.
    """
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, list | tuple):
        return tuple(map(_text, value))
    if isinstance(value, Mapping):
        return _from_map(value)
    return ()


def _from_text(text: str) -> tuple[str, ...]:
    if text.strip()[:1] in ("[", "{", "("):
        return _from_literal(text.strip())
    parts = text.splitlines() if "\n" in text.strip() else text.split(",")
    return tuple(_text(name.strip()) for name in parts if name.strip())


def _from_literal(text: str) -> tuple[str, ...]:
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, TypeError, SyntaxError, ArithmeticError, MemoryError, RecursionError):
            continue
        return () if isinstance(value, str) else names_from(value)
    return ()


def _text(name: Any) -> str:
    """As text that can be written in UTF-8: a lone surrogate, which a Python literal may hold, cannot."""
    return str(name).encode("utf-8", "replace").decode()


def _from_map(value: Mapping[Any, Any]) -> tuple[str, ...]:
    numbered: dict[int, str] = {}
    for key, name in value.items():
        number, label = (name, key) if not _is_number(key) and _is_number(name) else (key, name)
        if not _is_number(number) or int(str(number)) >= MOST_CLASSES:
            return ()
        numbered[int(str(number))] = _text(label)
    return tuple(numbered.get(number, str(number)) for number in range(max(numbered, default=-1) + 1))


def _is_number(value: Any) -> bool:
    return str(value).isascii() and str(value).isdigit()
