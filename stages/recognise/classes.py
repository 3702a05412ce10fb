"""Class names in the forms that people and exporters write them."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

MOST_CLASSES = 100_000


def names_from(value: Any) -> tuple[str, ...]:
    """Names by class number; empty where `value` holds none.

    From a list, a map {number: name}, either of them as text (JSON or a Python literal, which is never run), or plain
    text with one name a line, or commas between names. Numbers that a map leaves out are named by their number. In
    place of a name there may be a map that holds it, as COCO's categories {"id": 1, "name": "person"} are.
    """
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, list | tuple):
        return _from_list(value)
    if isinstance(value, Mapping):
        return _from_map(value)
    return ()


def _from_list(values: Sequence[Any]) -> tuple[str, ...]:
    """In the order of their numbers ("id"), where they have any, from 0 or 1 on; with gaps these may mean anything."""
    numbers = [str(value["id"]) for value in values if isinstance(value, Mapping) and "id" in value]
    if numbers:
        ids = [int(number) if _is_number(number) else -1 for number in numbers]
        first = min(ids)
        if len(ids) < len(values) or first not in (0, 1) or sorted(ids) != list(range(first, first + len(ids))):
            return ()
        values = [value for _, value in sorted(zip(ids, values, strict=True), key=lambda pair: pair[0])]
    return _from_map(dict(enumerate(values)))


def _from_text(text: str) -> tuple[str, ...]:
    if text.strip()[:1] in ("[", "{", "("):
        return _from_literal(text.strip())
    parts = text.splitlines() if "\n" in text.strip() else text.split(",")
    return _from_list([name.strip() for name in parts if name.strip()])


def _from_literal(text: str) -> tuple[str, ...]:
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, TypeError, SyntaxError, ArithmeticError, MemoryError, RecursionError):
            continue
        return () if isinstance(value, str) else names_from(value)
    return ()


def _text(name: Any) -> str | None:
    """As text that UTF-8 can hold, which a lone surrogate in a Python literal is not; None where it is no text."""
    if isinstance(name, Mapping):
        name = name.get("name")
    if isinstance(name, bytes):
        return name.decode("utf-8", "replace")
    if name is None or isinstance(name, list | tuple | set | Mapping):
        return None
    return str(name).encode("utf-8", "replace").decode()


def _from_map(value: Mapping[Any, Any]) -> tuple[str, ...]:
    numbered: dict[int, str] = {}
    for key, item in value.items():
        number, label = (item, key) if not _is_number(key) and _is_number(item) else (key, item)
        if not _is_number(number) or int(str(number)) >= MOST_CLASSES:
            return ()
        name = _text(label)
        if name is not None:
            numbered[int(str(number))] = name
        elif label is not None:
            return ()
    return tuple(numbered.get(number, str(number)) for number in range(max(numbered, default=-1) + 1))


def _is_number(value: Any) -> bool:
    return str(value).isascii() and str(value).isdigit()
