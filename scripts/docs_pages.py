"""The parts of the documentation that are made from the code: the tables of settings and the commands' reference.

    .venv/bin/python scripts/docs_pages.py        write the tables of docs/configuration.md anew

MkDocs reads this file as a hook: it makes reference/commands.md at each build, and the tables of settings as well.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from parallel_infer.cli import main
from parallel_infer.cli.config_options import ON_COMMAND_LINE
from parallel_infer.config.fields import FLEET_FIELDS, MODEL_FIELDS, SERVER_FIELDS, Field, toml_value
from parallel_infer.config.route_sources import ROUTE_FIELDS

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

MANUAL = Path(__file__).parents[1] / "docs" / "configuration.md"
COMMANDS = "reference/commands.md"
INTRODUCTION = """\
`parallel-infer COMMAND --help` prints the same. Exit codes: 0 done, 1 the work failed, 2 wrong usage."""


# --- settings ---------------------------------------------------------------------------------------------------------


def server_table() -> str:
    """Every field of a server, as a Markdown table."""
    options = {name: f"`--{name.replace('_', '-')}`" for name in ON_COMMAND_LINE} | {"models": "`--model NAME=PATH`"}
    return _table(("Name", "Default", "Accepts", "Option", "Meaning"), _rows(SERVER_FIELDS, options))


def model_table() -> str:
    """Every field of a model, as a Markdown table."""
    return _table(("Name", "Default", "Accepts", "Meaning"), _rows(MODEL_FIELDS, None))


def fleet_table() -> str:
    """Every field of a fleet, as a Markdown table."""
    return _table(("Name", "Default", "Accepts", "Meaning"), _rows(FLEET_FIELDS, None))


def router_table() -> str:
    """Every field of a router, as a Markdown table."""
    options = {name: f"`{field.option}`" for name, field in ROUTE_FIELDS.items()}
    return _table(("Name", "Default", "Accepts", "Option", "Meaning"), _rows(ROUTE_FIELDS, options))


TABLES = {"server": server_table, "model": model_table, "fleet": fleet_table, "router": router_table}


def with_tables(manual: str) -> str:
    """The text of docs/configuration.md with its tables as the program has them."""
    for name, table in ((name, make()) for name, make in TABLES.items()):
        start, rest = manual.split(f"<!-- fields of a {name} -->\n")
        manual = f"{start}<!-- fields of a {name} -->\n{table}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    return manual


def _rows(fields: Mapping[str, Field], options: Mapping[str, str] | None) -> Iterator[list[str]]:
    for field in fields.values():
        option = [] if options is None else [options.get(field.name, "")]
        yield [
            f"`{field.name}`",
            _default(field),
            *(cell.replace("|", "\\|") for cell in (field.expected, *option, field.meaning)),
        ]


def _default(field: Field) -> str:
    if field.default is msgspec.NODEFAULT:
        return "must be given"
    return "" if field.default is None or field.default == {} else f"`{toml_value(field.default)}`"


def _escaped(text: str) -> str:
    return re.sub(r"([*_|])", r"\\\1", text).replace("<", "&lt;").replace(">", "&gt;")


# --- commands ---------------------------------------------------------------------------------------------------------


def commands_page() -> str:
    """The reference of all commands, from their own help."""
    context = click.Context(main, info_name="parallel-infer")
    parts = ["# Commands", INTRODUCTION]
    for name in main.list_commands(context):
        parts += _command(main.get_command(context, name), name, context, "##")
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command | None, name: str, parent: click.Context, mark: str) -> Iterator[str]:
    assert command is not None, name
    context = click.Context(command, info_name=name, parent=parent)
    yield f"{mark} {context.command_path.removeprefix('parallel-infer ')}"
    yield f"```text\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```"
    yield from _paragraphs(command.help or "")
    if options := [record for one in command.params if (record := one.get_help_record(context))]:
        yield _table(("Option", "Meaning"), ([f"`{names}`", _prose(text)] for names, text in options))
    yield from _paragraphs(command.epilog or "")
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            yield from _command(command.get_command(context, child), child, context, mark + "#")


def _paragraphs(text: str) -> Iterator[str]:
    r"""Paragraphs of a help text; those that click leaves as they are (`\b`) become code."""
    for paragraph in re.split(r"\n[ ]*\n", inspect.cleandoc(text)):
        if paragraph.startswith("\b\n"):
            yield f"```text\n{inspect.cleandoc(paragraph[2:])}\n```"
        else:
            yield _prose(" ".join(paragraph.split()))


def _prose(text: str) -> str:
    """Text outside of code, with what Markdown would take for HTML or emphasis left as it is."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _escaped(part) for part in parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    lines.insert(1, "|" + "---|" * len(head))
    return "\n".join(lines)


# --- the site ---------------------------------------------------------------------------------------------------------


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the page of commands; MkDocs calls this once its files are known."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, COMMANDS, content=commands_page()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes the tables of settings anew; MkDocs calls this for every page."""
    return with_tables(markdown) if page.file.src_uri == MANUAL.name else markdown


if __name__ == "__main__":
    MANUAL.write_text(with_tables(MANUAL.read_text("utf-8")), "utf-8")
