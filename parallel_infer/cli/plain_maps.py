"""Maps and lists that a server answered with, for people: whatever is in them is shown, known or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from parallel_infer.cli.tables import print_table

MOST_COLUMNS = 8  # a table of more is turned: one column per entry
LONGEST_CELL = 40


def print_map(values: Mapping[str, Any], title: str = "") -> None:
    """Plain values line by line, then every map and list of maps as a table of its own."""
    plain = {key: value for key, value in values.items() if not _is_nested(value)}
    if plain:
        print_table(("", ""), [(_words(key), cell(value)) for key, value in plain.items()], title)
        click.echo()
    for key, value in values.items():
        if _is_nested(value):
            _print_nested(value, f"{title} {_words(key)}".strip())


def print_entries(entries: Mapping[str, Mapping[str, Any]], title: str = "") -> None:
    """Entries with the same keys as one table."""
    keys = list(dict.fromkeys(key for entry in entries.values() for key in entry))
    table = [(name, *(cell(entry.get(key)) for key in keys)) for name, entry in entries.items()]
    heading = ("", *map(_words, keys))
    if len(keys) > MOST_COLUMNS:
        heading, *table = zip(heading, *table, strict=True)
    print_table(heading, table, title)
    click.echo()


def cell(value: Any) -> str:
    """A value in a table cell."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case Mapping() if set(value) == {"slots", "free"}:
            return f"{value['free']} of {value['slots']} free"
        case Mapping():
            return _cut(" ".join(f"{key}:{cell(item)}" for key, item in value.items()) or "-")
        case list() | tuple():
            return _cut(_list(value) or "-")
    return str(value)


def _print_nested(value: Any, title: str) -> None:
    if isinstance(value, Sequence):
        print_entries({_entry_name(entry, number): entry for number, entry in enumerate(value, 1)}, title)
    elif all(isinstance(entry, Mapping) and entry for entry in value.values()):
        print_entries(value, title)
    else:
        print_map(value, title)


def _entry_name(entry: Mapping[str, Any], number: int) -> str:
    return str(entry.get("name", number))


def _is_nested(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list) and bool(value) and all(isinstance(entry, Mapping) for entry in value)


def _list(values: Iterable[Any]) -> str:
    return " ".join(f"[{cell(value)}]" if isinstance(value, (list, tuple)) else cell(value) for value in values)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 3] + "..."


def _words(key: str) -> str:
    return str(key).replace("_", " ")
