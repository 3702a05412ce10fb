"""Tables for people: drawn on a terminal, plain aligned text in a pipe or a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

Row = Sequence[str]
_NARROWEST, _USUAL = 20, 80  # characters
_GAP = "  "


def print_table(columns: Row, rows: Sequence[Row], title: str = "", file: IO[str] | None = None) -> None:
    """Print rows under their columns, which have no heading if all are empty; numbers are set to the right."""
    stream = file or sys.stdout
    if stream.isatty():
        _print_rich(columns, rows, title, stream)
        return
    if title:
        click.echo(title, file=stream)
    lines = aligned([columns, *rows])
    for line in lines if any(columns) else lines[1:]:
        click.echo(line, file=stream)


def aligned(rows: Sequence[Row]) -> list[str]:
    """Rows, the first of them the heading, as lines with straight columns."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [_all_numbers(column[1:]) for column in columns]
    return [
        _GAP.join(
            cell.rjust(width) if numbers else cell.ljust(width)
            for cell, width, numbers in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]


def _all_numbers(cells: Sequence[str]) -> bool:
    return bool(cells) and all(cell[:1].isdigit() or cell[:1] in ("-", "") for cell in cells)


def console(**options: Any) -> Console:
    """A console that is never too narrow for a table: COLUMNS=0 and terminals without a size would hide it all."""
    from rich.console import Console

    found = Console(**options)
    return found if found.width >= _NARROWEST else Console(**options, width=_USUAL)


def _print_rich(columns: Row, rows: Sequence[Row], title: str, stream: IO[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", show_header=any(columns))
    for column, cells in zip(columns, zip(*rows, strict=True) if rows else [()] * len(columns), strict=True):
        table.add_column(column, justify="right" if _all_numbers(cells) else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: names from files and servers are no markup
    console(file=stream).print(table)
